"""What a training ends in."""

from dataclasses import dataclass, field

from nern.evaluation import Evaluator
from nern.representation import Representation
from nern.training.config import Config
from nern.training.selection import Evaluation


@dataclass(frozen=True)
class Size:
    """A size that was tried, the drop of accuracy on the held-out images, in points of a percent, and how long it took.

    The drop is None, and the width too, if the training diverged.
    """

    ratio: float
    hidden: int | None
    drop: float | None
    seconds: float = field(default=0.0, compare=False)

    def meets(self, drop: float) -> bool:
        """Whether no more than that is lost."""
        return self.drop is not None and self.drop <= drop


@dataclass(frozen=True)
class Search:
    """What was asked for, every size that was tried, and whether the one returned meets the target."""

    drop: float
    met: bool
    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Trained:
    """The representation as it was at the best evaluation of all `steps`, and what it was judged by.

    `search` says how its size was found, if the configuration left that to an accuracy target.
    """

    representation: Representation
    config: Config
    steps: int
    best: Evaluation
    last: Evaluation
    evaluator: Evaluator | None
    seconds: float
    search: Search | None = None

    @property
    def distilled(self) -> bool:
        """Whether the original network was the predictor's teacher in any step."""
        return self.evaluator is not None and self.config.distils
