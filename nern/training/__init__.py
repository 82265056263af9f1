"""Training of predictors."""

from nern.training.progress import Progress
from nern.training.selection import Evaluation
from nern.training.snapshot import Interrupted, Snapshot
from nern.training.train import train
from nern.training.trained import SearchResult, Trained
from nern.training.trial import Trial

__all__ = ["Evaluation", "Interrupted", "Progress", "SearchResult", "Snapshot", "Trained", "Trial", "train"]
