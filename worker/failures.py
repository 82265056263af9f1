"""The type of failure of a job, by the exception that ended its training."""

from nern.errors import (
    BadArtefact,
    BadDescription,
    BadProgram,
    NernError,
    NotRepresentable,
    TrainingDiverged,
    UnknownArchitecture,
    UnusableImages,
)
from service.store.failures import FailureType

TYPES: dict[type[NernError], FailureType] = {
    NotRepresentable: "not-representable",
    UnknownArchitecture: "unknown-architecture",
    BadProgram: "unsupported-graph",
    BadDescription: "unfit-description",
    UnusableImages: "unusable-images",
    TrainingDiverged: "training-diverged",
    BadArtefact: "bad-artefact",
}


def failure_type(error: NernError) -> FailureType:
    """The type of failure for an error of `nern`; "internal" for errors that no type is documented for."""
    return next((type for kind, type in TYPES.items() if isinstance(error, kind)), "internal")
