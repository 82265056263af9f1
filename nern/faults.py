"""What kind of fault a failing torch operation is."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the host or of a device; torch, cuBLAS and cuDNN may say so with a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(phrase in str(error) for phrase in ("can't allocate memory", "out of memory", "ALLOC_FAILED"))


def is_device_fault(error: BaseException) -> bool:
    """Whether a GPU failed, so that nothing which this process does on it will succeed any more."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)
