"""How well a rebuilt network does what the original did."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nern import losses
from nern.cancellation import Cancellation, never
from nern.errors import UnusableImages
from nern.faults import is_device_fault, is_out_of_memory
from nern.images import Images, microbatches

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same inputs.

    `agreement` is the fraction of inputs that both classify alike, `divergence` the mean KL(original || rebuilt) in nats;
    the accuracies are None without labels.
    """

    images: int
    agreement: float
    divergence: float
    original_accuracy: float | None
    accuracy: float | None

    @property
    def drop(self) -> float:
        """Points of accuracy (percent) that the rebuilt network loses; there must be labels."""
        assert self.original_accuracy is not None
        assert self.accuracy is not None
        # Ten of 2,000 images are half a point, and not a little more as in binary fractions.
        return round(100 * (self.original_accuracy - self.accuracy), 6)


@dataclass(frozen=True)
class HeldOutSet:
    """Inputs kept back from training, in a fixed order and without augmentation: batches (B, channels, height, width)."""

    batches: Callable[[], Iterable[Tensor]]
    labels: Tensor | None = None

    @classmethod
    def of(cls, images: Images) -> "HeldOutSet":
        """All images of a dataset."""
        return cls(
            lambda: (images.normalised(pixels) for pixels in images.pixels_NHWC.split(EVALUATION_BATCH)), images.labels_N
        )


class Evaluator:
    """Compares rebuilt weights with the original network. The outputs of the original network are computed once.

    `cancellation` is called for every microbatch. Raises UnusableImages if the images or the labels do not fit the network.
    """

    def __init__(self, network: nn.Module, held_out: HeldOutSet, cancellation: Cancellation = never) -> None:
        self.network = network
        self.held_out = held_out
        self._cancellation = cancellation
        try:
            logits = self._logits({}, islice(held_out.batches(), 1))
        except (RuntimeError, ValueError, AssertionError) as error:
            if is_out_of_memory(error) or is_device_fault(error):
                raise
            raise UnusableImages(f"the network can't take these images: {str(error).splitlines()[0]}") from error
        if not logits.isfinite().all():
            raise UnusableImages("what the network itself says of these images are no finite numbers")
        if held_out.labels is not None and held_out.labels.max() >= logits.shape[1]:
            raise UnusableImages(f"a label is {int(held_out.labels.max())}, but the network has only {logits.shape[1]} classes")

    @cached_property
    def _original(self) -> Tensor:
        return self._logits({}, self.held_out.batches())

    def compare(self, weights: Mapping[str, Tensor]) -> Comparison:
        """The network with these tensors, by name, in place of its own against the network itself."""
        rebuilt, labels = self._logits(weights, self.held_out.batches()), self.held_out.labels
        return Comparison(
            images=len(rebuilt),
            agreement=_fraction(self._original.argmax(1), rebuilt.argmax(1)),
            divergence=losses.distillation(self._original, rebuilt).item(),
            original_accuracy=None if labels is None else _fraction(self._original.argmax(1), labels),
            accuracy=None if labels is None else _fraction(rebuilt.argmax(1), labels),
        )

    @torch.no_grad()
    def _logits(self, weights: Mapping[str, Tensor], batches: Iterable[Tensor]) -> Tensor:
        device = next(self.network.parameters()).device
        theirs = {name: weight.to(device) for name, weight in weights.items()}
        answers: list[Tensor] = []
        for some in chain.from_iterable(microbatches(batch) for batch in batches):
            self._cancellation()
            answers.append(functional_call(self.network, theirs, (some.to(device),)))
        return torch.cat(answers).float().cpu()


def _fraction(left: Tensor, right: Tensor) -> float:
    return (left == right).double().mean().item()
