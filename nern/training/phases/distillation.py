"""The distillation phase: the outputs of the student follow the outputs of the teacher."""

from nern.request.phases import Distillation
from nern.training.gradients import LossWeights, all_at_once
from nern.training.optimizers import Optimizers, adam, relative_rate_of
from nern.training.phases.base import Losses, Phase


class DistillationPhase(Phase[Distillation]):
    """Minimises the distillation loss with Adam. The gradient flows through all tiles.

    The better the predictor fits the target weights at the beginning, the smaller is the learning rate (`relative_rate`).
    """

    def begin(self, optimizers: Optimizers) -> Optimizers:
        return adam(self.setting.predictor, relative_rate_of(self.setting.targets, self.setting.targets.weights))

    def gradients(self, step: int) -> Losses:
        teacher = self.setting.teacher
        assert teacher is not None
        inputs = teacher.inputs("images", self.plan.first_batch + step)
        weights = LossWeights(logits=1.0, feature_maps=self.plan.feature_map_weight)
        return all_at_once(teacher.network, self.setting.targets, inputs, None, weights, teacher.output_loss)
