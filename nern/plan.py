"""A plan: what a training will do, for one network and one dataset, with every number filled in."""

from collections.abc import Sequence
from dataclasses import dataclass

from nern.layers import Layer
from nern.predictor import PredictorConfig
from nern.request import TrainingRequest
from nern.request.phases import PhasePlan
from nern.tiles import Tiles


@dataclass(frozen=True)
class Plan:
    """One training. `request` is the request with the value of every option, as it is shown to whoever asked.

    `pruned_networks` is the number of networks that are evaluated after the last step, to find out which weights matter.
    """

    request: TrainingRequest
    layers: tuple[Layer, ...]
    predictor: PredictorConfig
    phases: tuple[PhasePlan, ...]
    held_out_images: int
    bits: int
    sparsity: float
    pruned_networks: int

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    @property
    def distils(self) -> bool:
        """Whether any phase makes the predictor follow the teacher's outputs."""
        return any(phase.distils for phase in self.phases)

    def tiles(self) -> Tiles:
        """The layers, cut into tiles."""
        return Tiles(self.layers, self.request.small_kernels)


@dataclass(frozen=True)
class SearchPlan:
    """A search for the smallest predictor that loses at most `drop` points of accuracy: one plan for each size."""

    request: TrainingRequest
    drop: float
    candidates: Sequence[tuple[float, Plan]]
    """Parameters for each represented weight, and the plan of that size."""
