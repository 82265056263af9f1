"""Training predictors."""

from nern.training.config import Config, DecoupledConfig, PaperConfig, RegularisedConfig, read_config
from nern.training.loop import Progress, Snapshot
from nern.training.selection import Evaluation
from nern.training.train import choose_layers, train
from nern.training.trained import Trained

__all__ = [
    "Config",
    "DecoupledConfig",
    "Evaluation",
    "PaperConfig",
    "Progress",
    "RegularisedConfig",
    "Snapshot",
    "Trained",
    "choose_layers",
    "read_config",
    "train",
]
