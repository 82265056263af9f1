"""The compression phase: quantisation-aware training of the predictor, first a fit to its predictions, then distillation."""

from torch import Tensor

from nern.request.phases import QuantisedDistillation, QuantisedReconstruction
from nern.training.gradients import reconstruct
from nern.training.optimizers import Optimizers, muon, relative_rate_of
from nern.training.phases.base import Losses, Phase, Setting
from nern.training.phases.distillation import DistillationPhase
from nern.training.sampling import Shuffled


class QuantisedReconstructionPhase(Phase[QuantisedReconstruction]):
    """Minimises the mean squared error with respect to the predictions before quantisation, with Muon and Adam."""

    def __init__(self, plan: QuantisedReconstruction, setting: Setting) -> None:
        super().__init__(plan, setting)
        self._batches = Shuffled(setting.tile_count, plan.kernel_batch, setting.seed)

    def begin(self, optimizers: Optimizers) -> Optimizers:
        exact = quantise(self.setting, self.plan.bits, self.plan.sparsity)
        return muon(self.setting.predictor, relative_rate_of(self.setting.targets, exact))

    def gradients(self, step: int) -> Losses:
        return reconstruct(self.setting.targets, self._batches.batch(self.plan.first_batch + step))


class QuantisedDistillationPhase(DistillationPhase):
    """Minimises the distillation loss of a quantised predictor, with Adam."""

    plan: QuantisedDistillation

    def begin(self, optimizers: Optimizers) -> Optimizers:
        if not self.setting.predictor.quantised:
            quantise(self.setting, self.plan.bits, self.plan.sparsity)
        # After the fit, many weights are near the boundary between two codes. Small steps would change many codes at once.
        self.setting.predictor.centre()
        return super().begin(optimizers)


def quantise(setting: Setting, bits: int, sparsity: float) -> list[Tensor]:
    """Quantises the predictor, and fits it from here on to the predictions before quantisation.

    Returns these predictions, in the shapes of the layers: float32 (filters, channels, *kernel_size) each.
    """
    exact = setting.targets.representation.render_all()
    setting.targets.fit_to(exact)
    setting.predictor.quantise(bits, sparsity)
    return exact
