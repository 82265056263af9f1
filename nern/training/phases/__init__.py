"""The phases of a training. Each class carries out one class of phase plans (`nern.request.phases`)."""

from collections.abc import Iterable
from typing import Any

from nern.request import phases as plans
from nern.training.phases.base import Losses, Phase, Setting
from nern.training.phases.distillation import DistillationPhase
from nern.training.phases.joint import JointPhase
from nern.training.phases.quantised import QuantisedDistillationPhase, QuantisedReconstructionPhase
from nern.training.phases.reconstruction import ReconstructionPhase
from nern.training.phases.smoothing import SmoothingPhase
from nern.training.phases.synthesis import SynthesisPhase

__all__ = ["Losses", "Phase", "Setting", "make_phases"]

KINDS: dict[type[plans.PhasePlan], type[Phase[Any]]] = {
    plans.Synthesis: SynthesisPhase,
    plans.Smoothing: SmoothingPhase,
    plans.Reconstruction: ReconstructionPhase,
    plans.Distillation: DistillationPhase,
    plans.QuantisedReconstruction: QuantisedReconstructionPhase,
    plans.QuantisedDistillation: QuantisedDistillationPhase,
    plans.Joint: JointPhase,
}


def make_phases(planned: Iterable[plans.PhasePlan], setting: Setting) -> list[Phase[Any]]:
    """The phases that carry out these plans, in the same order."""
    return [KINDS[type(plan)](plan, setting) for plan in planned]
