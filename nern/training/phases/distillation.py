"""Makes the outputs of the rebuilt network follow the teacher's."""

from nern.request.phases import Distillation
from nern.training.gradients import LossWeights, all_at_once
from nern.training.optimizers import Optimizers, adam, relative_rate
from nern.training.phases.base import Losses, Phase


class DistillationPhase(Phase[Distillation]):
    """Adam on the divergence of the outputs, through all tiles. The better the fit, the smaller the learning rate."""

    def begin(self, optimizers: Optimizers) -> Optimizers:
        return adam(self.setting.predictor, relative_rate(self.setting.targets, self.setting.targets.weights))

    def gradients(self, step: int) -> Losses:
        teacher = self.setting.teacher
        assert teacher is not None
        inputs = teacher.inputs("images", self.plan.first_batch + step)
        weights = LossWeights(logits=1.0, feature_maps=self.plan.feature_map_weight)
        return all_at_once(teacher.network, self.setting.targets, inputs, None, weights)
