"""The phases of the paper recipe: all losses at once (arXiv 2212.13554)."""

from nern.optim import Ranger
from nern.request.phases import Joint
from nern.training.gradients import LossWeights, all_at_once
from nern.training.optimizers import Optimizers
from nern.training.phases.base import Losses, Phase, Setting
from nern.training.sampling import UniformOrByMagnitude

# Is added to the probabilities of the student, as in the authors' code.
PROBABILITY_EPS = 1e-4


class JointPhase(Phase[Joint]):
    """Minimises the weighted sum of the losses with Ranger. The gradient flows through a batch of tiles."""

    def __init__(self, plan: Joint, setting: Setting) -> None:
        super().__init__(plan, setting)
        tiles = setting.targets.fitted_tiles
        self._batches = UniformOrByMagnitude(tiles, plan.kernel_batch, plan.magnitude_probability, setting.seed)

    def begin(self, optimizers: Optimizers) -> Optimizers:
        # Reconstruction and distillation are one training in the published code, so both phases share an optimizer.
        if optimizers and isinstance(optimizers[0], Ranger):
            return optimizers
        rate, decay = self.plan.learning_rate.peak, self.plan.weight_decay
        return (Ranger(self.setting.predictor.parameters(), lr=rate, weight_decay=decay),)

    def gradients(self, step: int) -> Losses:
        batch = self._batches.batch(self.plan.first_batch + step)
        teacher = self.setting.teacher if self.plan.distils else None
        if teacher is None:
            return all_at_once(None, self.setting.targets, None, batch, LossWeights(reconstruction=1.0))
        weights = LossWeights(
            reconstruction=1.0,
            feature_maps=self.plan.feature_map_weight,
            logits=self.plan.logit_weight,
            eps=PROBABILITY_EPS,
        )
        inputs = teacher.inputs("images", step)
        return all_at_once(teacher.network, self.setting.targets, inputs, batch, weights, teacher.output_loss)
