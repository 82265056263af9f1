"""What a recipe is made of: the phases of a training, as numbers. `nern.training.phases` carries them out."""

import math
from dataclasses import dataclass
from typing import Literal

PhaseName = Literal["synthesis", "smoothing", "reconstruction", "distillation", "compression", "importance"]


@dataclass(frozen=True)
class Cosine:
    """A learning rate schedule: a linear rise over `warm_up` steps, and half a cosine from `peak` to `floor` over `steps`.

    The schedule is entered at step `first`.
    """

    peak: float
    steps: int
    warm_up: int = 0
    floor: float = 0.0
    first: int = 0

    def __call__(self, step: int) -> float:
        """The learning rate of a step that counts from 0."""
        step += self.first
        rise = min(1.0, (step + 1) / (self.warm_up + 1))
        return rise * (self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * step / self.steps)))


def warmed_up(peak: float, steps: int) -> Cosine:
    """A cosine schedule whose first fiftieth is warm-up."""
    return Cosine(peak, steps, warm_up=steps // 50)


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """One phase. `evaluations` says how often, over the phase, the whole network is evaluated."""

    name: PhaseName
    steps: int
    learning_rate: Cosine
    evaluations: int = 20

    @property
    def distils(self) -> bool:
        """Whether the phase makes the predictor follow the teacher's outputs."""
        return False


@dataclass(frozen=True, kw_only=True)
class Synthesis(PhasePlan):
    """Makes the images of matched noise, one group after the other; the schedule is that of one group."""

    name: PhaseName = "synthesis"
    group_steps: int
    evaluations: int = 0


@dataclass(frozen=True, kw_only=True)
class Smoothing(PhasePlan):
    """Fine-tunes the original network so that neighbouring tiles become similar while the outputs stay the same."""

    name: PhaseName = "smoothing"
    smoothness_weight: float
    evaluations: int = 0


@dataclass(frozen=True, kw_only=True)
class Reconstruction(PhasePlan):
    """Fits batches of `kernel_batch` tiles to the weights."""

    name: PhaseName = "reconstruction"
    kernel_batch: int
    evaluations: int = 5


@dataclass(frozen=True, kw_only=True)
class Distillation(PhasePlan):
    """Makes the outputs follow the teacher's. The stream of images is entered at batch `first_batch`."""

    name: PhaseName = "distillation"
    feature_map_weight: float
    first_batch: int = 0

    @property
    def distils(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class QuantisedReconstruction(PhasePlan):
    """Quantises the predictor, and fits batches of tiles to the predictions from before the quantisation."""

    name: PhaseName = "compression"
    kernel_batch: int
    first_batch: int
    bits: int
    sparsity: float
    evaluations: int = 5


@dataclass(frozen=True, kw_only=True)
class QuantisedDistillation(Distillation):
    """Distils with quantised weights, which it first moves to the centres of their quantisation intervals."""

    name: PhaseName = "compression"
    bits: int
    sparsity: float


@dataclass(frozen=True, kw_only=True)
class Joint(PhasePlan):
    """All losses at once, with a gradient that flows through a batch of `kernel_batch` tiles, as published.

    A loss of weight 0 is not computed. Batches are counted from `first_batch`.
    """

    kernel_batch: int
    first_batch: int
    magnitude_probability: float
    weight_decay: float
    feature_map_weight: float = 0.0
    logit_weight: float = 0.0

    @property
    def distils(self) -> bool:
        return self.feature_map_weight + self.logit_weight > 0
