"""Training predictors."""

from nern.training.config import DecoupledConfig, PaperConfig
from nern.training.train import Evaluation, Progress, Trained, choose_layers, train

__all__ = ["DecoupledConfig", "Evaluation", "PaperConfig", "Progress", "Trained", "choose_layers", "train"]
