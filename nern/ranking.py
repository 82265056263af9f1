"""Encoding of permutations in fewer bits than their numbers take.

The numbers 0, 1, … are divided into *runs* of sixteen consecutive numbers. The encoding has two parts. The first part has the
run of each number, in the order of the permutation. The second part says for each run in which of the 16! possible orders its
numbers occur (Lehmer code). This takes 45 bits for each run. The numbers within the run, four bits each, would take 64 bits.

No encoding can take fewer than log2(n!) bits for all permutations of n numbers. For large n, this encoding takes a quarter of
a bit more for each number.
"""

import math

import torch
from torch import Tensor

from nern import packing

RUN_LENGTH = 16


def nbytes(permutations: int, n: int) -> int:
    """The number of bytes of so many permutations of n numbers."""
    return sum(packing.nbytes(count, width) for count, width in _fields(permutations, n))


def encode(permutations: Tensor) -> Tensor:
    """The bytes of permutations of 0 … n - 1: int64 (permutations, n) to uint8 (nbytes(permutations, n),)."""
    count, n = permutations.shape
    run = permutations // RUN_LENGTH
    inside = (permutations % RUN_LENGTH).gather(1, run.argsort(dim=1, stable=True))
    whole, rest = inside.tensor_split([n // RUN_LENGTH * RUN_LENGTH], dim=1)
    fields = zip((run.flatten(), _rank(whole.reshape(-1, RUN_LENGTH)), _rank(rest)), _fields(count, n), strict=True)
    return torch.cat([packing.pack(numbers, width) for numbers, (_, width) in fields])


def decode(packed: Tensor, permutations: int, n: int) -> Tensor:
    """The inverse of `encode`: uint8 (nbytes(permutations, n),) to int64 (permutations, n).

    Raises ValueError if the bytes are not so many permutations of n numbers.
    """
    fields = _fields(permutations, n)
    sizes = [packing.nbytes(*field) for field in fields]
    if packed.numel() != sum(sizes):
        raise ValueError(f"{packed.numel()} bytes are not {permutations} permutations of {n} numbers")
    run, whole, rest = (packing.unpack(part, *field) for part, field in zip(packed.split(sizes), fields, strict=True))
    run = run.view(permutations, n)
    order = run.argsort(dim=1, stable=True)
    first = (torch.arange(n) // RUN_LENGTH * RUN_LENGTH).expand_as(run)
    if not torch.equal(run.gather(1, order) * RUN_LENGTH, first):
        raise ValueError("the bytes are not a permutation: a run has too few or too many numbers")
    inside = torch.cat([_unrank(whole, RUN_LENGTH).view(permutations, -1), _unrank(rest, n % RUN_LENGTH)], dim=1)
    return torch.empty_like(run).scatter_(1, order, first + inside)


def _fields(permutations: int, n: int) -> list[tuple[int, int]]:
    """The three arrays of the encoding, as (how many numbers, bits of each).

    These are the runs of all numbers, the orders of the whole runs, and the orders of the last runs, which may be shorter.
    """
    return [
        (permutations * n, _width(-(-n // RUN_LENGTH))),
        (permutations * (n // RUN_LENGTH), _width(math.factorial(RUN_LENGTH))),
        (permutations, _width(math.factorial(n % RUN_LENGTH))),
    ]


def _width(values: int) -> int:
    return (values - 1).bit_length()


def _rank(orders: Tensor) -> Tensor:
    """The Lehmer codes, below n!, of orders of 0 … n - 1: int64 (m, n) to int64 (m,).

    The digits of a code are in base n, n - 1, … 1. A digit is how many smaller numbers follow a number.
    """
    numbers = orders.new_zeros(len(orders))
    for at in range(orders.shape[1]):
        numbers = numbers * (orders.shape[1] - at) + (orders[:, at + 1 :] < orders[:, at : at + 1]).sum(1)
    return numbers


def _unrank(numbers: Tensor, n: int) -> Tensor:
    """The inverse of `_rank`: int64 (m,) to int64 (m, n). Raises ValueError for a code of n! or more."""
    orders = numbers.new_zeros(len(numbers), n)
    for at in reversed(range(n)):
        orders[:, at] = numbers % (n - at)
        numbers = numbers // (n - at)
        orders[:, at + 1 :] += orders[:, at + 1 :] >= orders[:, at : at + 1]
    if numbers.any():
        raise ValueError("the bytes are not a permutation: a run has no such order")
    return orders
