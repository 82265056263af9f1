"""Classification of the exceptions that torch operations raise."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the host or of a GPU is exhausted. torch, cuBLAS and cuDNN may raise a plain RuntimeError then."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(phrase in str(error) for phrase in ("can't allocate memory", "out of memory", "ALLOC_FAILED"))


def is_device_fault(error: BaseException) -> bool:
    """Whether a GPU failed. After such a fault, every operation of the process on this GPU fails."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)
