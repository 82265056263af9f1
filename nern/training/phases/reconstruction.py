"""The reconstruction phase: the predictor is fitted to the weights. It needs no teacher."""

from nern.request.phases import Reconstruction
from nern.training.gradients import reconstruct
from nern.training.optimizers import Optimizers, muon
from nern.training.phases.base import Losses, Phase, Setting
from nern.training.sampling import Shuffled


class ReconstructionPhase(Phase[Reconstruction]):
    """Minimises the mean squared error of batches of tiles, with Muon and Adam."""

    def __init__(self, plan: Reconstruction, setting: Setting) -> None:
        super().__init__(plan, setting)
        self._batches = Shuffled(setting.tile_count, plan.kernel_batch, setting.seed)

    def begin(self, optimizers: Optimizers) -> Optimizers:
        self.setting.targets.freeze()
        return muon(self.setting.predictor)

    def gradients(self, step: int) -> Losses:
        return reconstruct(self.setting.targets, self._batches.batch(step))
