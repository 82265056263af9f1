"""Everything that this library raises on purpose."""


class NernError(Exception):
    """Base of all errors below; its text is a sentence for the person who caused it."""


class ImpossibleRequest(NernError):
    """A training can't be done as it was asked for. `pointer` is the field at fault, as a JSON Pointer (RFC 6901) into the job
    that asks for it; it is empty if no single field is at fault.
    """

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.pointer = pointer


class InconsistentOptions(ImpossibleRequest, ValueError):
    """Two options contradict each other for this network."""


class NotRepresentable(ImpossibleRequest):
    """The network, or the selection of layers asked for, has nothing that a predictor could stand for."""


class NoStateDict(NernError):
    """What was loaded holds no state_dict."""


class UnknownArchitecture(ImpossibleRequest):
    """No architecture of that name, or the checkpoint does not match it."""


class UnusableImages(ImpossibleRequest):
    """The images do not suit the network or the request, or there are too few of them."""


class OtherTraining(NernError, ValueError):
    """A snapshot belongs to another training."""


class BadSnapshot(NernError):
    """The bytes are not a snapshot of this library, or one of another version."""


class TrainingDiverged(NernError):
    """A loss stopped being finite."""


class BadArtefact(NernError):
    """The bytes are not an artefact of this library, or one of a later version."""
