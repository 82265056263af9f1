"""Numbers of a fixed width in bits, one after the other, the lowest bit first."""

import numpy as np
import torch
from torch import Tensor

# Numbers turned into bits at a time; a multiple of eight, so that a batch is whole bytes.
BATCH_NUMBERS = 2**16


def nbytes(count: int, width: int) -> int:
    """Bytes that so many numbers take."""
    return -(-count * width // 8)


def pack(numbers: Tensor, width: int) -> Tensor:
    """Integers (n,), of which the lowest `width` bits are stored, as a string of bytes, uint8."""
    shifts = np.arange(width)
    batches = [
        np.packbits(((batch.numpy()[:, None] >> shifts) & 1).astype(np.uint8), bitorder="little")
        for batch in numbers.split(BATCH_NUMBERS)
    ]
    return torch.from_numpy(np.concatenate(batches))


def unpack(packed: Tensor, count: int, width: int) -> Tensor:
    """The inverse of `pack`, int64 (count,). Raises ValueError if there are more or fewer bytes than that takes."""
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
