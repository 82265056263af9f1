"""Permutations in fewer bits than their indices take.

The numbers 0, 1, … are cut into runs of sixteen. Of every number it is stored, in the order of the permutation, which run it is
of; and of every run, in which of the 16! orders its numbers occur (Lehmer's code): 45 bits, where indices inside the run would
take 64. The least there can be for n numbers is log2(n!) bits, for large n another quarter of a bit each below this.
"""

import math

import torch
from torch import Tensor

from nern import packing

RUN_LENGTH = 16


def nbytes(permutations: int, n: int) -> int:
    """Bytes that so many permutations of n numbers take."""
    return sum(packing.nbytes(count, width) for count, width in _fields(permutations, n))


def encode(permutations: Tensor) -> Tensor:
    """Permutations of 0 … n - 1, int64 (permutations, n), as a string of bytes, uint8."""
    count, n = permutations.shape
    run = permutations // RUN_LENGTH
    inside = (permutations % RUN_LENGTH).gather(1, run.argsort(dim=1, stable=True))
    whole, rest = inside.tensor_split([n // RUN_LENGTH * RUN_LENGTH], dim=1)
    fields = zip((run.flatten(), _rank(whole.reshape(-1, RUN_LENGTH)), _rank(rest)), _fields(count, n), strict=True)
    return torch.cat([packing.pack(numbers, width) for numbers, (_, width) in fields])


def decode(packed: Tensor, permutations: int, n: int) -> Tensor:
    """The inverse of `encode`. Raises ValueError for bytes that are no such permutations."""
    fields = _fields(permutations, n)
    sizes = [packing.nbytes(*field) for field in fields]
    if packed.numel() != sum(sizes):
        raise ValueError(f"{packed.numel()} bytes are not {permutations} permutations of {n} numbers")
    run, whole, rest = (packing.unpack(part, *field) for part, field in zip(packed.split(sizes), fields, strict=True))
    run = run.view(permutations, n)
    order = run.argsort(dim=1, stable=True)
    first = (torch.arange(n) // RUN_LENGTH * RUN_LENGTH).expand_as(run)
    if not torch.equal(run.gather(1, order) * RUN_LENGTH, first):
        raise ValueError("the bits are no permutation: a run has too few or too many numbers")
    inside = torch.cat([_unrank(whole, RUN_LENGTH).view(permutations, -1), _unrank(rest, n % RUN_LENGTH)], dim=1)
    return torch.empty_like(run).scatter_(1, order, first + inside)


def _fields(permutations: int, n: int) -> list[tuple[int, int]]:
    """How many numbers of how many bits are stored: runs, orders of whole runs, and the orders of what is left."""
    return [
        (permutations * n, _width(-(-n // RUN_LENGTH))),
        (permutations * (n // RUN_LENGTH), _width(math.factorial(RUN_LENGTH))),
        (permutations, _width(math.factorial(n % RUN_LENGTH))),
    ]


def _width(values: int) -> int:
    return (values - 1).bit_length()


def _rank(orders: Tensor) -> Tensor:
    """Of orders (m, n) of 0 … n - 1 the numbers, below n!: in base n, n - 1, … 1, how many smaller ones follow each."""
    numbers = orders.new_zeros(len(orders))
    for at in range(orders.shape[1]):
        numbers = numbers * (orders.shape[1] - at) + (orders[:, at + 1 :] < orders[:, at : at + 1]).sum(1)
    return numbers


def _unrank(numbers: Tensor, n: int) -> Tensor:
    """The inverse of `_rank`: int64 (m, n)."""
    orders = numbers.new_zeros(len(numbers), n)
    for at in reversed(range(n)):
        orders[:, at] = numbers % (n - at)
        numbers = numbers // (n - at)
        orders[:, at + 1 :] += orders[:, at + 1 :] >= orders[:, at : at + 1]
    if numbers.any():
        raise ValueError("the bits are no permutation: a run has no such order")
    return orders
