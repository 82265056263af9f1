"""The results of a training."""

from dataclasses import dataclass

from nern.evaluation import Evaluator
from nern.plan import Plan
from nern.representation import Representation
from nern.training.selection import Evaluation
from nern.training.snapshot import Snapshot
from nern.training.trial import Trial


@dataclass(frozen=True)
class SearchResult:
    """The result of a search: the target in percentage points, whether the chosen size meets the target, and all trials."""

    drop: float
    met: bool
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    representation: the representation of the best evaluation, on the CPU.
    steps: the number of steps that were made, in all trials.
    best, last: the best and the last evaluation.
    evaluator: the evaluator, or None if the training had no teacher.
    seconds: the time of the training, in all trials.
    snapshot: a detached snapshot after the last step, from which a training makes no step and has the same result.
    """

    representation: Representation
    plan: Plan
    steps: int
    best: Evaluation
    last: Evaluation
    evaluator: Evaluator | None
    seconds: float
    snapshot: Snapshot
    search: SearchResult | None = None

    @property
    def distilled(self) -> bool:
        """Whether any step distilled."""
        return self.evaluator is not None and self.plan.distils
