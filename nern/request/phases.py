"""The plans of the phases of a training: what recipes consist of. `nern.training.phases` carries the phases out."""

import math
from dataclasses import dataclass
from typing import Literal

PhaseName = Literal["synthesis", "smoothing", "reconstruction", "distillation", "compression", "importance"]


@dataclass(frozen=True)
class Cosine:
    """A learning rate schedule: half a cosine from `peak` to `floor` over `steps` steps.

    The rates of the first `warm_up` steps are multiplied by a factor that rises linearly to 1. A phase begins at step `first`
    of its schedule.
    """

    peak: float
    steps: int
    warm_up: int = 0
    floor: float = 0.0
    first: int = 0

    def __call__(self, step: int) -> float:
        """The learning rate of a step of the phase. Steps count from 0."""
        step += self.first
        rise = min(1.0, (step + 1) / (self.warm_up + 1))
        return rise * (self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * step / self.steps)))


def warmed_up(peak: float, steps: int) -> Cosine:
    """A cosine schedule that ends at 0. A fiftieth of its steps is warm-up."""
    return Cosine(peak, steps, warm_up=steps // 50)


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """The plan of one phase. `evaluations` is the number of evaluations of the rebuilt network that the phase aims at."""

    name: PhaseName
    steps: int
    learning_rate: Cosine
    evaluations: int = 20

    @property
    def distils(self) -> bool:
        """Whether a loss of the phase compares outputs with the teacher's."""
        return False


@dataclass(frozen=True, kw_only=True)
class Synthesis(PhasePlan):
    """Makes the images of matched noise, one group after the other. Each group takes `group_steps` steps.

    The learning rate schedule begins anew with each group.
    """

    name: PhaseName = "synthesis"
    group_steps: int
    evaluations: int = 0


@dataclass(frozen=True, kw_only=True)
class Smoothing(PhasePlan):
    """Fine-tunes the original network so that neighbouring tiles become similar and the outputs stay the same."""

    name: PhaseName = "smoothing"
    smoothness_weight: float
    evaluations: int = 0

    @property
    def distils(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class Reconstruction(PhasePlan):
    """Fits the predictor to the weights, in batches of `kernel_batch` tiles."""

    name: PhaseName = "reconstruction"
    kernel_batch: int
    evaluations: int = 5


@dataclass(frozen=True, kw_only=True)
class Distillation(PhasePlan):
    """Makes the student's outputs follow the teacher's. The batches of inputs are numbered from `first_batch`."""

    name: PhaseName = "distillation"
    feature_map_weight: float
    first_batch: int = 0

    @property
    def distils(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class QuantisedReconstruction(PhasePlan):
    """Quantises the predictor, and fits it to the predictions that it made before.

    The batches of `kernel_batch` tiles are numbered from `first_batch`.
    """

    name: PhaseName = "compression"
    kernel_batch: int
    first_batch: int
    bits: int
    sparsity: float
    evaluations: int = 5


@dataclass(frozen=True, kw_only=True)
class QuantisedDistillation(Distillation):
    """Distils with a quantised predictor. Before the first step, every weight is set to the value that it is quantised to."""

    name: PhaseName = "compression"
    bits: int
    sparsity: float


@dataclass(frozen=True, kw_only=True)
class Joint(PhasePlan):
    """Minimises all losses at once, as published. The gradient flows through a batch of `kernel_batch` tiles.

    A loss of weight 0 is not computed. The batches of tiles are numbered from `first_batch`.
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
