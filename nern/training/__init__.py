"""Training of predictors."""

from nern.training.progress import Progress
from nern.training.selection import Evaluation
from nern.training.snapshot import Snapshot
from nern.training.train import train
from nern.training.trained import SearchResult, Trained, Trial

__all__ = ["Evaluation", "Progress", "SearchResult", "Snapshot", "Trained", "Trial", "train"]
