"""The exceptions that this library raises for its callers."""


class NernError(Exception):
    """The base of all errors below. The text says what is wrong, to the person who asked for it."""


class ImpossibleRequest(NernError):
    """A training can't be done as it was requested.

    `pointer` is a JSON Pointer (RFC 6901) to the field of the job that is at fault. It is empty if no single field is.
    """

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.pointer = pointer


class InconsistentOptions(ImpossibleRequest, ValueError):
    """The values of two options exclude each other for this network."""


class NotRepresentable(ImpossibleRequest):
    """The network or the requested layers have no weights that can be represented, or have a tensor that can't be stored."""


class NoStateDict(NernError):
    """The content of a checkpoint holds no state_dict."""


class UnknownArchitecture(ImpossibleRequest):
    """There is no architecture of this name, or the checkpoint does not match the architecture."""


class UnusableImages(ImpossibleRequest):
    """The images or their labels do not suit the network or the request, or there are too few or too many images."""


class OtherTraining(NernError, ValueError):
    """A snapshot is of another training than the one that should go on from it."""


class BadSnapshot(NernError):
    """A file is not a snapshot, is damaged, or has a version that this release can't read."""


class TrainingDiverged(NernError):
    """A loss became infinite or NaN, or no evaluation of the rebuilt network was finite."""


class BadArtefact(NernError):
    """A file is not an artefact or a safetensors file, is damaged, or has a version that this release can't read."""


class BadProgram(NernError):
    """A graph is damaged, or has an operator, an argument or a version that this release can't interpret."""


class BadDescription(ImpossibleRequest):
    """The description of a sequential network does not fit the weights. `pointer` has the number of the step, from 0."""


class UnknownKey(NernError):
    """No state_dict of a file is where a client says."""
