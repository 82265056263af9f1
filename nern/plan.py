"""A plan: a request for one network and one dataset, with every number filled in."""

from collections.abc import Sequence
from dataclasses import dataclass

from nern.layers import Layer
from nern.predictor import PredictorConfig
from nern.request import TrainingRequest
from nern.request.phases import PhasePlan
from nern.tiles import Tiles


@dataclass(frozen=True)
class Plan:
    """The plan of one training.

    `request` has the value of every option; answers to clients show it. `held_out_images` is the number of held-out images or
    noise inputs. `bits` and `sparsity` are those of the stored predictor. `pruned_networks` is the number of pruned networks
    that are evaluated after the last step for the report.
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
        """The number of optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    @property
    def distils(self) -> bool:
        """Whether a phase makes the student's outputs follow the teacher's."""
        return any(phase.distils for phase in self.phases)

    def tiles(self) -> Tiles:
        """The tiles of the layers."""
        return Tiles(self.layers, self.request.small_kernels)


@dataclass(frozen=True)
class SearchPlan:
    """The plan of a search for the smallest predictor that loses at most `drop` percentage points of accuracy."""

    request: TrainingRequest
    drop: float
    candidates: Sequence[tuple[float, Plan]]
    """The plan for each size of predictor, from small to large. A size is in parameters for each represented weight."""

    @property
    def distils(self) -> bool:
        """Whether the trials have phases that distil."""
        return any(plan.distils for _, plan in self.candidates)
