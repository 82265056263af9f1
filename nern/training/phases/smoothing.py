"""The smoothing phase: fine-tuning of the original network for smoothness (arXiv 2212.13554, section 4.2)."""

import torch

from nern.request.phases import Smoothing
from nern.training.gradients import smooth
from nern.training.optimizers import Optimizers
from nern.training.phases.base import Losses, Phase


class SmoothingPhase(Phase[Smoothing]):
    """Trains the target weights with Adam, so that neighbouring tiles become similar.

    The distillation loss keeps the outputs near those of the unchanged network, which is the teacher.
    """

    def begin(self, optimizers: Optimizers) -> Optimizers:
        return (torch.optim.Adam(self.setting.targets.make_trainable()),)

    def gradients(self, step: int) -> Losses:
        teacher = self.setting.teacher
        assert teacher is not None
        inputs = teacher.inputs("smoothing", step)
        return smooth(teacher.network, self.setting.targets, inputs, self.plan.smoothness_weight, teacher.output_loss)
