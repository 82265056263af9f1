"""What all phases are."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from nern.predictor import Predictor
from nern.request.phases import PhasePlan
from nern.training.optimizers import Optimizers
from nern.training.targets import Targets
from nern.training.teacher import Teacher

Losses = dict[str, float]

Planned = TypeVar("Planned", bound=PhasePlan)


@dataclass(frozen=True)
class Setting:
    """What the phases of one training work on. Without a teacher nothing distils."""

    targets: Targets
    teacher: Teacher | None
    seed: int

    @property
    def predictor(self) -> Predictor:
        return self.targets.representation.predictor

    @property
    def tiles(self) -> int:
        """How many tiles there are."""
        return len(self.targets.representation.tiles)


class Phase(ABC, Generic[Planned]):
    """A part of a training. All methods but `begin` are functions of the number of steps that the phase has behind it."""

    def __init__(self, plan: Planned, setting: Setting) -> None:
        self.plan = plan
        self.setting = setting

    @abstractmethod
    def begin(self, optimizers: Optimizers) -> Optimizers:
        """Makes ready what the phase trains; its optimizers. `optimizers` are those of the phase before."""

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.plan.learning_rate(step)

    @abstractmethod
    def gradients(self, step: int) -> Losses:
        """Computes the gradients of a step; the values of its losses."""
