"""Comparison of a rebuilt network with the original network on held-out inputs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice

import torch
from torch import Tensor, nn

from nern import losses
from nern.cancellation import Cancellation, never
from nern.errors import UnusableImages
from nern.faults import is_device_fault, is_out_of_memory
from nern.images import Images, microbatches
from nern.teachers.renamed import call

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Comparison:
    """The outputs of two networks for the same inputs, compared.

    `images` is the number of inputs. `agreement` is the fraction of inputs for which both networks have the same most probable
    class. `divergence` is the mean KL(original || rebuilt) of the softmax outputs, in nats. `original_accuracy` and
    `accuracy`, of the rebuilt network, are the fractions of inputs that are classified as labelled; None without labels.
    """

    images: int
    agreement: float
    divergence: float
    original_accuracy: float | None
    accuracy: float | None

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

    `batches` returns the inputs in batches, float32 (B, channels, height, width). `labels` are int64 (inputs,), or None.
    """

    batches: Callable[[], Iterable[Tensor]]
    labels: Tensor | None = None

    @classmethod
    def of(cls, images: Images) -> "HeldOutSet":
        """A held-out set of all these images."""
        return cls(
            lambda: (images.normalised(pixels) for pixels in images.pixels_NHWC.split(EVALUATION_BATCH)), images.labels_N
        )


class Evaluator:
    """Compares networks with rebuilt weights with the original network on a held-out set.

    The outputs of the original network are computed once. `cancellation` is called before every microbatch. Raises
    UnusableImages if the network can't take the inputs, or gives outputs that are not finite.
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
            raise UnusableImages("the outputs of the original network for these images are not finite")

    @cached_property
    def _original(self) -> Tensor:
        return self._logits({}, self.held_out.batches())

    def compare(self, weights: Mapping[str, Tensor]) -> Comparison:
        """Compares the network in which `weights`, by name, replace the original tensors with the original network."""
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
        moved = {name: weight.to(device) for name, weight in weights.items()}
        logits: list[Tensor] = []
        for microbatch in chain.from_iterable(microbatches(batch) for batch in batches):
            self._cancellation()
            logits.append(call(self.network, moved, (microbatch.to(device),)))
        return torch.cat(logits).float().cpu()


def _fraction(left: Tensor, right: Tensor) -> float:
    return (left == right).double().mean().item()
