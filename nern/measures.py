"""Figures about outputs, from sums that are added up one microbatch at a time. No output is kept."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nern import losses
from nern.objectives import NO_CLASS, Objective

# An output of at least so many axes, such as (B, 1, samples) or (B, 3, height, width), is dense: it has a PSNR.
DENSE_AXES = 3


@dataclass(frozen=True)
class Quality:
    """The error of outputs with respect to the targets of the dataset: mean squared error, and PSNR in dB for dense outputs.

    The peak of the PSNR is the range of the targets.
    """

    mse: float
    psnr: float | None


@dataclass(frozen=True)
class OutputComparison:
    """One output of two networks for the same inputs, compared.

    relative_error: the root mean square of the difference, divided by the spread of the original output. A network whose
        output is always the mean of each channel has the relative error 1.
    psnr: the peak signal-to-noise ratio of a dense output that holds values, in dB. The peak is the range of the original
        output. None for other outputs.
    agreement, divergence: the fraction of positions at which both networks have the same most probable class, and the mean
        KL(original || rebuilt) in nats; None for outputs that hold values. (B, C) has one position for each input.
    original_accuracy, accuracy: the fractions of positions that are classified as labelled, or None without such labels.
    original_quality, quality: the errors with respect to floating-point targets, or None without such targets.
    """

    name: str
    objective: str
    relative_error: float
    psnr: float | None = None
    agreement: float | None = None
    divergence: float | None = None
    original_accuracy: float | None = None
    accuracy: float | None = None
    original_quality: Quality | None = None
    quality: Quality | None = None

    @property
    def rank(self) -> float:
        """What model selection minimises for this output: the divergence of classes, or the relative error of values."""
        return self.divergence if self.objective == "classes" and self.divergence is not None else self.relative_error


class Moments:
    """The spread and the range of an output, from its microbatches."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = torch.zeros(())
        self._squares = torch.zeros(())
        self._low, self._high = math.inf, -math.inf

    def add(self, output: Tensor) -> None:
        """Adds a microbatch (B, ...)."""
        values = output.double().flatten(2) if output.ndim > 2 else output.double()
        dims = [dim for dim in range(values.ndim) if dim != 1]
        count = values.numel() // values.shape[1] if values.ndim > 1 else values.numel()
        variance, mean = torch.var_mean(values, dims, correction=0)
        total = self._count + count
        shift = mean - self._mean
        self._squares = self._squares + variance * count + shift.square() * (self._count * count / total)
        self._mean = self._mean + shift * (count / total)
        self._count = total
        self._low, self._high = min(self._low, values.min().item()), max(self._high, values.max().item())

    @property
    def spread(self) -> float:
        """The root of the mean over the channels (axis 1) of the variance within a channel.

        If every channel is constant, as with a single input, it is the root mean square; if that is 0, it is 1.
        """
        variance = (self._squares / self._count).mean().item()
        square = variance + self._mean.square().mean().item()
        # Rounding errors of a constant channel are no spread.
        return math.sqrt(variance if variance > 1e-12 * square else square) or 1.0

    @property
    def range(self) -> float:
        """The largest value minus the smallest value."""
        return self._high - self._low


class Measure:
    """Compares one output of two networks, one microbatch at a time.

    `original` has the moments of the original output. `targets_range` is the range of floating-point targets.
    """

    def __init__(self, objective: Objective, original: Moments, targets_range: float) -> None:
        self._objective = objective
        self._moments = original
        self._targets_range = targets_range
        self._elements = self._inputs = self._positions = self._same = self._labelled = 0
        self._square = self._divergence = 0.0
        self._right = [0, 0]
        self._target_squares = [0.0, 0.0]
        self._targets = 0
        self._dense = False

    def add(self, original: Tensor, rebuilt: Tensor, labels: Tensor | None) -> None:
        """Adds the outputs (B, ...) for one microbatch, and the labels of this output: (B, ...), or None."""
        count = len(original)
        self._dense = original.ndim >= DENSE_AXES
        self._square += (rebuilt.double() - original.double()).square().sum().item()
        self._elements += original.numel()
        self._inputs += count
        if self._objective.kind == "classes":
            teacher, student = (losses.logits(one) if self._objective.probabilities else one for one in (original, rebuilt))
            divergence = losses.distillation(teacher, student).item()
            # A running mean: for one microbatch it has the bits of the divergence.
            self._divergence += (divergence - self._divergence) * (count / self._inputs)
        integers = labels is not None and not labels.is_floating_point()
        if self._objective.kind == "classes" or integers:
            classes = [one.argmax(1) for one in (original, rebuilt)]
            self._same += int((classes[0] == classes[1]).sum())
            self._positions += classes[0].numel()
            if labels is not None and integers:
                known = labels >= 0 if labels.ndim == 1 else (labels >= 0) & (labels != NO_CLASS)
                self._labelled += int(known.sum())
                for number, chosen in enumerate(classes):
                    self._right[number] += int(((chosen == labels) & known).sum())
        if labels is not None and not integers:
            self._targets += labels.numel()
            for number, one in enumerate((original, rebuilt)):
                self._target_squares[number] += (one.double() - labels.double()).square().sum().item()

    def result(self) -> OutputComparison:
        """The figures about all microbatches."""
        mse = self._square / self._elements
        values = self._objective.kind == "values"
        accuracies = [right / self._labelled if self._labelled else None for right in self._right]
        qualities = [self._quality(total) if self._targets else None for total in self._target_squares]
        return OutputComparison(
            name=self._objective.name,
            objective=self._objective.kind,
            relative_error=math.sqrt(mse) / self._moments.spread,
            psnr=psnr(mse, self._moments.range) if values and self._dense else None,
            agreement=self._same / self._positions if self._positions else None,
            divergence=None if values else self._divergence,
            original_accuracy=accuracies[0],
            accuracy=accuracies[1],
            original_quality=qualities[0],
            quality=qualities[1],
        )

    def _quality(self, total: float) -> Quality:
        mse = total / self._targets
        return Quality(mse, psnr(mse, self._targets_range) if self._dense else None)


def psnr(mse: float, peak: float) -> float:
    """The peak signal-to-noise ratio in dB. It is infinite for equal signals, and NaN if there is no number."""
    if math.isnan(mse):
        return math.nan
    return math.inf if mse == 0 else 20 * math.log10(peak) - 10 * math.log10(mse) if peak > 0 else -math.inf
