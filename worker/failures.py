"""Which failure of a job an exception stands for."""

from nern.errors import BadArtefact, NernError, NotRepresentable, TrainingDiverged, UnknownArchitecture, UnusableImages
from service.store.failures import FailureType

TYPES: dict[type[NernError], FailureType] = {
    NotRepresentable: "not-representable",
    UnknownArchitecture: "unknown-architecture",
    UnusableImages: "unusable-images",
    TrainingDiverged: "training-diverged",
    BadArtefact: "bad-artefact",
}


def failure_type(error: NernError) -> FailureType:
    """The documented type of failure that this error stands for."""
    return next((type for kind, type in TYPES.items() if isinstance(error, kind)), "internal")
