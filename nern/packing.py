"""Packing of integers of a fixed width in bits. Integers follow each other without gaps, the lowest bit of each first."""

import numpy as np
import torch
from torch import Tensor

# So many numbers are converted at a time. This bounds the memory. It is a multiple of eight, so that a batch fills its bytes.
BATCH_NUMBERS = 2**16


def nbytes(count: int, width: int) -> int:
    """The number of bytes of `count` numbers of `width` bits."""
    return -(-count * width // 8)


def pack(numbers: Tensor, width: int) -> Tensor:
    """Packs the lowest `width` bits of each integer: int (n,) to uint8 (nbytes(n, width),)."""
    shifts = np.arange(width)
    batches = [
        np.packbits(((batch.numpy()[:, None] >> shifts) & 1).astype(np.uint8), bitorder="little")
        for batch in numbers.split(BATCH_NUMBERS)
    ]
    return torch.from_numpy(np.concatenate(batches))


def unpack(packed: Tensor, count: int, width: int) -> Tensor:
    """The inverse of `pack`: uint8 (nbytes(count, width),) to int64 (count,), none of them negative.

    Raises ValueError for another number of bytes.
    """
    if packed.numel() != nbytes(count, width):
        raise ValueError(f"{packed.numel()} bytes are not {count} numbers of {width} bits")
    values = 1 << np.arange(width, dtype=np.int64)
    numbers = np.empty(count, dtype=np.int64)
    for first in range(0, count, BATCH_NUMBERS):
        number = min(BATCH_NUMBERS, count - first)
        part = packed[nbytes(first, width) : nbytes(first + number, width)].numpy()
        bits = np.unpackbits(part, count=number * width, bitorder="little")
        numbers[first : first + number] = bits.reshape(number, width) @ values
    return torch.from_numpy(numbers)
