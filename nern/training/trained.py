"""What a training ends in."""

from dataclasses import dataclass, field

from nern.evaluation import Evaluator
from nern.plan import Plan
from nern.representation import Representation
from nern.training.selection import Evaluation


@dataclass(frozen=True)
class Trial:
    """One size of a search: parameters for each represented weight, width, points of accuracy lost, and seconds.

    The width and the drop are None if the training diverged.
    """

    ratio: float
    hidden: int | None
    drop: float | None
    seconds: float = field(default=0.0, compare=False)

    def meets(self, drop: float) -> bool:
        """Whether at most that many points of accuracy were lost."""
        return self.drop is not None and self.drop <= drop


@dataclass(frozen=True)
class SearchResult:
    """The drop that was asked for, whether the chosen size meets it, and every trial."""

    drop: float
    met: bool
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Trained:
    """The representation as it was at the best evaluation of all `steps`, and the evaluator that chose it, if there was one."""

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
        """Whether the original network was the predictor's teacher in any step."""
        return self.evaluator is not None and self.plan.distils
