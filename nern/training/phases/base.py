"""The base class of all phases."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from nern.predictor import Predictor
from nern.request.phases import PhasePlan
from nern.training.optimizers import Optimizers
from nern.training.targets import Targets, suspect
from nern.training.teacher import Teacher

Losses = dict[str, float]

Planned = TypeVar("Planned", bound=PhasePlan)


@dataclass(frozen=True)
class Setting:
    """The objects that the phases of one training share. `teacher` is None in a training without distillation."""

    targets: Targets
    teacher: Teacher | None
    seed: int

    @property
    def predictor(self) -> Predictor:
        return self.targets.representation.predictor

    @property
    def tile_count(self) -> int:
        """The number of tiles of all layers."""
        return len(self.targets.representation.tiles)


class Phase(ABC, Generic[Planned]):
    """A part of a training with one objective. A `step` is the number of steps that the phase made before."""

    def __init__(self, plan: Planned, setting: Setting) -> None:
        self.plan = plan
        self.setting = setting

    @abstractmethod
    def begin(self, optimizers: Optimizers) -> Optimizers:
        """Prepares the phase, and returns its optimizers. `optimizers` are those of the phase before."""

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.plan.learning_rate(step)

    def suspect(self) -> str:
        """What a loss that is not finite may come from: a sentence for the person who asked for the training."""
        return suspect(self.setting.targets)

    @abstractmethod
    def gradients(self, step: int) -> Losses:
        """Computes the gradients of a step, and returns the values of the losses by name."""
