"""Comparison of a rebuilt network with the original network on held-out inputs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice

import torch
from torch import Tensor, nn

from nern import losses
from nern.cancellation import Cancellation, never
from nern.errors import UnusableImages
from nern.faults import is_device_fault, is_out_of_memory
from nern.images import Images, microbatches
from nern.measures import Measure, Moments, OutputComparison
from nern.objectives import NO_CLASS, LabelFacts, Objective, OutputFacts, choose
from nern.teachers import Batch, Outputs, Weights, call, device_of

EVALUATION_BATCH = 256

# The most numbers in the outputs of the original network that are kept from one comparison to the next: 256 MiB in float32.
# More are computed again for every comparison.
MAX_KEPT_OUTPUTS = 2**26


@dataclass(frozen=True)
class Comparison:
    """The outputs of two networks for the same inputs, compared.

    `images` is the number of inputs. `agreement` is the fraction of inputs for which both networks have the same most probable
    class. `divergence` is the mean KL(original || rebuilt) of the softmax outputs, in nats. `original_accuracy` and
    `accuracy`, of the rebuilt network, are the fractions of inputs that are classified as labelled; None without labels. These
    figures are those of the first output that has them, and None if no output does. `outputs` has the figures of each output
    that is not ignored.
    """

    images: int
    agreement: float | None
    divergence: float | None
    original_accuracy: float | None
    accuracy: float | None
    outputs: tuple[OutputComparison, ...] = ()

    @classmethod
    def of(cls, images: int, outputs: Sequence[OutputComparison]) -> "Comparison":
        """The comparison with these figures of the outputs."""

        def first(name: str) -> float | None:
            return next((value for output in outputs if (value := getattr(output, name)) is not None), None)

        return cls(
            images,
            agreement=first("agreement"),
            divergence=first("divergence"),
            original_accuracy=first("original_accuracy"),
            accuracy=first("accuracy"),
            outputs=tuple(outputs),
        )

    @property
    def rank(self) -> float:
        """What model selection minimises: the sum over the outputs of divergence (classes) or relative error (values)."""
        if not self.outputs:
            assert self.divergence is not None
            return self.divergence
        return sum(output.rank for output in self.outputs)

    @property
    def drop(self) -> float:
        """Accuracy that the rebuilt network loses, in percentage points. Only for inputs with labels."""
        assert self.original_accuracy is not None
        assert self.accuracy is not None
        # Ten of 2,000 images are exactly half a point. The rounding removes the error of binary fractions.
        return round(100 * (self.original_accuracy - self.accuracy), 6)


@dataclass(frozen=True)
class HeldOutSet:
    """Inputs that are kept back from the training, in a fixed order and without augmentation.

    `batches` returns the inputs in batches: a tuple of tensors (B, ...), one for each input of the network. `labels` are None,
    or have a label for each input: int64 (inputs,) or (inputs, height, width) for classes, float32 (inputs, ...) for targets.
    `facts` are the facts about the labels of the whole dataset; None: about these labels.
    """

    batches: Callable[[], Iterable[Batch]]
    labels: Tensor | None = None
    facts: LabelFacts | None = None

    @classmethod
    def of(cls, images: Images) -> "HeldOutSet":
        """A held-out set of all these images."""
        return cls(
            lambda: ((images.normalised(pixels),) for pixels in images.pixels_NHWC.split(EVALUATION_BATCH)), images.labels_N
        )


Choose = Callable[[Sequence[OutputFacts], LabelFacts | None], Sequence[Objective]]
"""Chooses the objectives of the outputs that a network gives, with these labels."""


def of_classifier(outputs: Sequence[OutputFacts], labels: LabelFacts | None) -> Sequence[Objective]:
    """The objectives of a classifier that is known by name."""
    return choose(outputs, None, labels, by_name=True)


@dataclass(frozen=True)
class Original:
    """The original outputs: the moments of each, and all outputs of each microbatch, or None if they are too many."""

    moments: Mapping[str, Moments]
    kept: Sequence[Outputs] | None


@dataclass
class Kept:
    """Outputs that are kept as long as they are at most MAX_KEPT_OUTPUTS numbers."""

    outputs: list[Outputs] = field(default_factory=list)
    numbers: int = 0

    def add(self, outputs: Outputs) -> None:
        """Keeps the outputs of a microbatch, or forgets all outputs if they have become too many."""
        self.numbers += sum(output.numel() for output in outputs.values())
        if self.numbers > MAX_KEPT_OUTPUTS:
            self.outputs.clear()
        else:
            self.outputs.append(outputs)

    def all(self) -> Sequence[Outputs] | None:
        """All outputs, or None if they were too many."""
        return self.outputs if self.numbers <= MAX_KEPT_OUTPUTS else None


class Evaluator:
    """Compares networks with rebuilt weights with the original network on a held-out set.

    `cancellation` is called before every microbatch. Raises UnusableImages if the network can't take the inputs, if it gives
    outputs that are not finite or have no batch axis, and if floating-point targets fit no output.

    objectives: the objectives of the outputs, which `choose` has chosen.
    """

    def __init__(
        self, network: nn.Module, held_out: HeldOutSet, cancellation: Cancellation = never, choose: Choose = of_classifier
    ) -> None:
        self.network = network
        self.held_out = held_out
        self._cancellation = cancellation
        facts = self._probe()
        labels = held_out.facts or label_facts(held_out.labels)
        self.objectives = tuple(choose(facts, labels))
        self._labelled = _labelled(facts, self.objectives, labels)
        targets = held_out.labels if labels is not None and labels.kind == "values" else None
        self._targets_range = 0.0 if targets is None else (targets.max() - targets.min()).item()

    def compare(self, weights: Weights) -> Comparison:
        """Compares the network in which `weights`, by name, replace the original tensors with the original network."""
        original, inputs = self._original, 0
        compared = [objective for objective in self.objectives if objective.kind != "ignore"]
        measures = {one.name: Measure(one, original.moments[one.name], self._targets_range) for one in compared}
        moved = {name: weight.to(device_of(self.network)) for name, weight in weights.items()}
        for number, microbatch in enumerate(self._microbatches()):
            rebuilt = self._outputs(moved, microbatch)
            expected = self._outputs({}, microbatch) if original.kept is None else original.kept[number]
            count = len(microbatch[0])
            labels = None if self.held_out.labels is None else self.held_out.labels[inputs : inputs + count]
            inputs += count
            for name, measure in measures.items():
                measure.add(expected[name], rebuilt[name], labels if name == self._labelled else None)
        return Comparison.of(inputs, [measure.result() for measure in measures.values()])

    def loss(self, teacher: Outputs, student: Outputs, eps: float = 0.0) -> Tensor:
        """The distillation loss: the sum over the outputs of the divergence or of the relative squared error. A scalar.

        The spread of an output is that of the original output on the whole held-out set. So the scale of the loss does not
        depend on the inputs of a step. `eps` is added to the probabilities of the student; see `nern.losses.distillation`.
        """
        total: Tensor | None = None
        for objective in self.objectives:
            name = objective.name
            if objective.kind == "ignore":
                continue
            if objective.kind == "values":
                value = losses.relative_square(teacher[name], student[name], self._original.moments[name].spread)
            elif objective.probabilities:
                value = losses.distillation(losses.logits(teacher[name]), losses.logits(student[name]), eps)
            else:
                value = losses.distillation(teacher[name], student[name], eps)
            total = value if total is None else total + value
        assert total is not None, "at least one output is not ignored"
        return total

    @property
    def measures_accuracy(self) -> bool:
        """Whether the labels number the classes of an output."""
        return self._labelled is not None and self.held_out.labels is not None and not self.held_out.labels.is_floating_point()

    @cached_property
    def _original(self) -> Original:
        """The outputs of the original network. They are computed when they are needed first, because synthesis makes inputs."""
        moments = {one.name: Moments() for one in self.objectives if one.kind != "ignore"}
        kept = Kept()
        for microbatch in self._microbatches():
            outputs = self._outputs({}, microbatch)
            for name, of_output in moments.items():
                of_output.add(outputs[name])
            kept.add({name: outputs[name] for name in moments})
        return Original(moments, kept.all())

    def _probe(self) -> list[OutputFacts]:
        """The outputs that the original network gives for the first batch. Raises UnusableImages."""
        facts: list[OutputFacts] = []
        try:
            for microbatch in chain.from_iterable(microbatches(batch) for batch in islice(self.held_out.batches(), 1)):
                outputs = self._outputs({}, microbatch)
                facts = [_facts(name, output, len(microbatch[0])) for name, output in outputs.items()]
                if any(output.is_floating_point() and not output.isfinite().all() for output in outputs.values()):
                    raise UnusableImages("the outputs of the original network for these images are not finite")
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
            if is_out_of_memory(error) or is_device_fault(error):
                raise
            raise UnusableImages(f"the network can't take these images: {(str(error).splitlines() or [''])[0]}") from error
        if not facts:
            raise UnusableImages("the network gives no tensor for these images")
        return facts

    def _microbatches(self) -> Iterator[Batch]:
        return chain.from_iterable(microbatches(batch) for batch in self.held_out.batches())

    @torch.no_grad()
    def _outputs(self, weights: Weights, microbatch: Batch) -> Outputs:
        self._cancellation()
        device = device_of(self.network)
        outputs = call(self.network, weights, tuple(part.to(device) for part in microbatch))
        return {name: (one.float() if one.is_floating_point() else one).cpu() for name, one in outputs.items()}


def label_facts(labels: Tensor | None) -> LabelFacts | None:
    """The facts about labels of inputs (inputs, ...)."""
    if labels is None:
        return None
    shape = tuple(labels.shape[1:])
    if labels.is_floating_point():
        return LabelFacts("values", shape)
    classes = labels[labels != NO_CLASS] if shape else labels
    return LabelFacts("classes", shape, int(classes.max()) + 1 if classes.numel() else 0)


def _facts(name: str, output: Tensor, inputs: int) -> OutputFacts:
    if output.ndim == 0 or len(output) != inputs or output.numel() == 0:
        raise UnusableImages(
            f"the output {name!r} has the shape {list(output.shape)} for {inputs} inputs: its first axis must count the inputs"
        )
    return OutputFacts(name, (None, *output.shape[1:]), output.is_floating_point())


def _labelled(facts: Sequence[OutputFacts], objectives: Sequence[Objective], labels: LabelFacts | None) -> str | None:
    """The name of the output that the labels belong to: the first one that they fit and that is not ignored.

    Outputs that hold classes come first. Raises UnusableImages if floating-point targets fit no output.
    """
    if labels is None:
        return None
    kinds = {objective.name: objective.kind for objective in objectives}
    fitting = [output.name for output in facts if kinds[output.name] != "ignore" and labels.fit(output)]
    if not fitting and labels.kind == "values":
        shapes = ", ".join(f"{output.name!r} {list(output.shape or ())[1:]}" for output in facts)
        raise UnusableImages(
            f"the labels have the shape {list(labels.shape)} for each input, which is that of no output: {shapes}",
            "/data/dataset_id",
        )
    return min(fitting, key=lambda name: kinds[name] != labels.kind, default=None)
