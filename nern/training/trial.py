"""A trial of a search for the size of a predictor."""

from dataclasses import dataclass, field


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
