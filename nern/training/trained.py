"""The results of a training."""

from dataclasses import dataclass, field

from nern.evaluation import Evaluator
from nern.plan import Plan
from nern.representation import Representation
from nern.training.selection import Evaluation


@dataclass(frozen=True)
class Trial:
    """A finished trial of a search.

    ratio: the size of the predictor, in parameters for each represented weight.
    hidden: the width of the predictor, or None if the training diverged.
    drop: the loss of accuracy in percentage points, or None if the training diverged.
    seconds: the time that the trial took.
    """

    ratio: float
    hidden: int | None
    drop: float | None
    seconds: float = field(default=0.0, compare=False)

    def meets(self, drop: float) -> bool:
        """Whether at most `drop` percentage points of accuracy were lost."""
        return self.drop is not None and self.drop <= drop


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
    """

    representation: Representation
    plan: Plan
    steps: int
    best: Evaluation
    last: Evaluation
    evaluator: Evaluator | None
    seconds: float
    search: SearchResult | None = None

    @property
    def distilled(self) -> bool:
        """Whether any step distilled."""
        return self.evaluator is not None and self.plan.distils
