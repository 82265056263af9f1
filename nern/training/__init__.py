"""Training predictors."""

from nern.training.config import DecoupledConfig, PaperConfig
from nern.training.loop import Progress, Snapshot
from nern.training.selection import Evaluation
from nern.training.train import Trained, choose_layers, train

__all__ = ["DecoupledConfig", "Evaluation", "PaperConfig", "Progress", "Snapshot", "Trained", "choose_layers", "train"]
