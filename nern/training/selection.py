"""Model selection: keeping the predictor of the best evaluation."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, isfinite
from typing import Any

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
        """The value that model selection minimises: the divergence, or without a comparison the relative error."""
        value = self.comparison.divergence if self.comparison else self.relative_error
        return value if isfinite(value) else inf

    def beats(self, other: "Evaluation | None") -> bool:
        """Whether this evaluation is better than another. An evaluation after quantisation beats all evaluations before it."""
        return other is None or self.compressed > other.compressed or self.rank < other.rank


class Selection:
    """The best evaluation so far with the weights of the predictor at that time, and the last evaluation."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._best: Evaluation | None = None
        self._last: Evaluation | None = None
        self._weights: dict[str, Tensor] = {}

    def add(self, evaluation: Evaluation) -> Evaluation:
        """Adds an evaluation of the predictor in its present state, and returns the evaluation."""
        self._last = evaluation
        if evaluation.beats(self._best):
            self._best, self._weights = evaluation, copy.deepcopy(self._predictor.state_dict())
        return evaluation

    def finish(self) -> tuple[Evaluation, Evaluation]:
        """Restores the predictor of the best evaluation. Returns the best and the last evaluation.

        Raises TrainingDiverged if no evaluation was finite.
        """
        assert self._best is not None, "the last step is always evaluated"
        assert self._last is not None
        if self._best.rank == inf:
            raise TrainingDiverged("no evaluation of the rebuilt network gave finite numbers: a smaller learning rate may help")
        self._predictor.load_state_dict(self._weights)
        return self._best, self._last

    def state_dict(self) -> dict[str, Any]:
        """The state of the selection, for snapshots."""
        plain = {name: asdict(value) if value else None for name, value in (("best", self._best), ("last", self._last))}
        return {**plain, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state that `state_dict` returned."""
        self._best, self._last = _evaluation(state["best"]), _evaluation(state["last"])
        self._weights = dict(state["weights"])


def _evaluation(plain: dict[str, Any] | None) -> Evaluation | None:
    if plain is None:
        return None
    return Evaluation(**{**plain, "comparison": Comparison(**plain["comparison"]) if plain["comparison"] else None})
