"""Model selection: keeping the predictor of the best evaluation."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite

from torch import Tensor

from nern.errors import TrainingDiverged
from nern.evaluation import Comparison
from nern.predictor import Predictor


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of the representation after `step` steps.

    `relative_error` is the norm of the error of all represented weights over the norm of the weights. `comparison` is None
    without an evaluator. `compressed` says whether the predictor was quantised to few bits.
    """

    step: int
    relative_error: float
    comparison: Comparison | None
    compressed: bool = False

    @property
    def rank(self) -> float:
        """The value that model selection minimises: the rank of the comparison, or without one the relative error."""
        value = self.comparison.rank if self.comparison else self.relative_error
        return value if isfinite(value) else inf

    def beats(self, other: "Evaluation | None") -> bool:
        """Whether this evaluation is better than another. An evaluation after quantisation beats all evaluations before it."""
        return other is None or (not self.compressed, self.rank) < (not other.compressed, other.rank)


@dataclass(frozen=True)
class SelectionState:
    """The best evaluation so far with the state_dict of the predictor at that time, and the last evaluation."""

    best: Evaluation | None
    last: Evaluation | None
    predictor: Mapping[str, Tensor]


class Selection:
    """Keeps the predictor of the best evaluation."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.state = SelectionState(None, None, {})

    def add(self, evaluation: Evaluation) -> Evaluation:
        """Adds an evaluation of the predictor in its present state, and returns the evaluation."""
        if evaluation.beats(self.state.best):
            self.state = SelectionState(evaluation, evaluation, copy.deepcopy(self._predictor.state_dict()))
        else:
            self.state = replace(self.state, last=evaluation)
        return evaluation

    def finish(self) -> tuple[Evaluation, Evaluation]:
        """Restores the predictor of the best evaluation. Returns the best and the last evaluation.

        Raises TrainingDiverged if no evaluation was finite.
        """
        best, last = self.state.best, self.state.last
        assert best is not None, "the last step is always evaluated"
        assert last is not None
        if best.rank == inf:
            raise TrainingDiverged("no evaluation of the rebuilt network gave finite numbers: a smaller learning rate may help")
        self._predictor.load_state_dict(self.state.predictor)
        return best, last
