"""Which of its states a training is to be remembered by."""

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
    """How good the representation is after `step` steps.

    `relative_error` is the norm of the error over the norm of the weights; `comparison` is None without a evaluator.
    `compressed` says whether the predictor was quantised as it will be stored.
    """

    step: int
    relative_error: float
    comparison: Comparison | None
    compressed: bool = False

    @property
    def rank(self) -> float:
        """What model selection minimises: the divergence from the original, or else the error of the weights."""
        value = self.comparison.divergence if self.comparison else self.relative_error
        return value if isfinite(value) else inf

    def beats(self, other: "Evaluation | None") -> bool:
        """Whether this one is to be preferred; what a predictor was before it was quantised no longer counts."""
        return other is None or self.compressed > other.compressed or self.rank < other.rank


class Selection:
    """The best evaluation so far, with the predictor as it was then, and the last one."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._best: Evaluation | None = None
        self._last: Evaluation | None = None
        self._weights: dict[str, Tensor] = {}

    def add(self, evaluation: Evaluation) -> Evaluation:
        """Takes note of an evaluation of the predictor as it is now; gives it back."""
        self._last = evaluation
        if evaluation.beats(self._best):
            self._best, self._weights = evaluation, copy.deepcopy(self._predictor.state_dict())
        return evaluation

    def finish(self) -> tuple[Evaluation, Evaluation]:
        """Puts the predictor back to its best state; the best evaluation and the last. Raises TrainingDiverged."""
        assert self._best is not None, "the last step is always evaluated"
        assert self._last is not None
        if self._best.rank == inf:
            raise TrainingDiverged("no evaluation of the rebuilt network gave finite numbers")
        self._predictor.load_state_dict(self._weights)
        return self._best, self._last

    def state_dict(self) -> dict[str, Any]:
        """For `load_state_dict`."""
        plain = {name: asdict(value) if value else None for name, value in (("best", self._best), ("last", self._last))}
        return {**plain, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what another selection had noted."""
        self._best, self._last = _evaluation(state["best"]), _evaluation(state["last"])
        self._weights = dict(state["weights"])


def _evaluation(plain: dict[str, Any] | None) -> Evaluation | None:
    if plain is None:
        return None
    return Evaluation(**{**plain, "comparison": Comparison(**plain["comparison"]) if plain["comparison"] else None})
