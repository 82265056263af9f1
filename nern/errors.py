"""Everything that this library raises on purpose. Needs no torch until a failure of torch is looked at."""


class NernError(Exception):
    """Base of all errors below; its text is a sentence for the person who caused it."""


class NotRepresentable(NernError):
    """The network, or the selection of layers asked for, has nothing that a predictor could stand for."""


class NoStateDict(NernError):
    """What was loaded holds no state_dict."""


class UnknownArchitecture(NernError):
    """No architecture of that name, or the checkpoint does not match it."""


class UnusableImages(NernError):
    """The images do not fit the network, or there are too few of them."""


class TrainingDiverged(NernError):
    """A loss stopped being finite."""


class BadArtefact(NernError):
    """The bytes are not an artefact of this library, or one of a later version."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the host or of a device; torch, cuBLAS and cuDNN may say so with a plain RuntimeError."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(phrase in str(error) for phrase in ("can't allocate memory", "out of memory", "ALLOC_FAILED"))


def is_device_fault(error: BaseException) -> bool:
    """Whether a GPU failed, so that nothing which this process does on it will succeed any more."""
    import torch

    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)
