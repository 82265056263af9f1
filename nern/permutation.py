"""Smoothness by permutation: neighbouring coordinates get similar kernels (arXiv 2212.13554, section 4.2).

The weights stay where they are; only the coordinate that a kernel is assigned changes. Per layer a permutation is the
*position* of every kernel, an int64 tensor of shape (kernels,): the kernel with flat number n inside its layer is
assigned the coordinate (layer, position[n] // channels, position[n] % channels).
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PermutationKind = Literal["cross-filter", "in-filter", "none"]

Check = Callable[[], None]

# Positions of a path between two calls of a check.
CHECK_EVERY = 256

# Kernels of smaller norm have no direction worth following.
TINY = 1e-12


def _nothing() -> None:
    pass


def permute(weight: Tensor, kind: PermutationKind, check: Check = _nothing) -> Tensor:
    """Positions of the kernels of one weight (filters, channels, *size): int64 of shape (filters * channels,).

    "cross-filter" follows one greedy path through all kernels of the layer; "in-filter" one path through the kernels of
    each filter and then one through the filters. `check` is called now and then; what it raises ends the search.
    """
    filters, channels = weight.shape[:2]
    if kind == "none":
        return torch.arange(filters * channels)
    kernels = weight.detach().float().reshape(filters, channels, -1)
    if kind == "cross-filter":
        return _invert(kernel_path(kernels.flatten(0, 1), check))
    paths = torch.stack([kernel_path(kernels[i], check) for i in range(filters)])
    # Filters of single weights are compared by their ordered values: a weight alone has only a sign for a direction.
    directions = _unit(kernels.flatten(0, 1)).view_as(kernels) if kernels.shape[2] > 1 else _unit(kernels[..., 0])[..., None]
    ordered = torch.stack([directions[i][paths[i]].flatten() for i in range(filters)])
    rank_of_filter = _invert(greedy_path(ordered, check))
    rank_in_filter = torch.stack([_invert(path) for path in paths])
    return (rank_of_filter[:, None] * channels + rank_in_filter).flatten()


def kernel_path(kernels: Tensor, check: Check = _nothing) -> Tensor:
    """A path through n kernels (n, weights) along which neighbours are similar: a permutation, int64 (n,).

    Kernels of one weight have no direction, so they are sorted by value.
    """
    if kernels.shape[1] == 1:
        return kernels[:, 0].argsort(stable=True)
    return greedy_path(_unit(kernels), check)


def greedy_path(vectors: Tensor, check: Check = _nothing) -> Tensor:
    """Starts at row 0 and always goes on to the unvisited row of largest dot product (ties: the lowest); int64 (n,).

    Takes n matrix-vector products, so time grows with n squared and memory with n.
    """
    rows: npt.NDArray[np.float32] = vectors.float().numpy()
    path = np.zeros(len(rows), dtype=np.int64)
    visited = np.zeros(len(rows), dtype=np.float32)
    for position in range(1, len(rows)):
        if position % CHECK_EVERY == 0:
            check()
        current = path[position - 1]
        visited[current] = -np.inf
        path[position] = np.argmax(rows @ rows[current] + visited)
    return torch.from_numpy(path)


def mean_consecutive_cosine(weight: Tensor, position: Tensor) -> float:
    """How similar neighbours on the path are: the mean cosine of consecutive kernels, 1.0 where there are no pairs."""
    kernels = _unit(weight.detach().float().reshape(position.numel(), -1))[_invert(position)]
    return (kernels[1:] * kernels[:-1]).sum(1).mean().item() if len(kernels) > 1 else 1.0


def pack(position: Tensor, filters: int, channels: int, kind: PermutationKind) -> Tensor:
    """A permutation as a bit string, uint8: ceil(log2 n) bits for each rank among n; see `unpack`.

    Cross-filter: the position of every kernel. In-filter: the rank of every filter, then the rank of every kernel inside
    its filter.
    """
    if kind == "none":
        return torch.empty(0, dtype=torch.uint8)
    if kind == "cross-filter":
        bits = _to_bits(position, filters * channels)
    else:
        table = position.reshape(filters, channels)
        bits = np.concatenate([_to_bits(table[:, 0] // channels, filters), _to_bits(table.flatten() % channels, channels)])
    return torch.from_numpy(np.packbits(bits, bitorder="little"))


def unpack(packed: Tensor, filters: int, channels: int, kind: PermutationKind) -> Tensor:
    """The inverse of `pack`. Raises ValueError if the bits are no permutation of this layer."""
    count = filters * channels
    if kind == "none":
        return torch.arange(count)
    bits = np.unpackbits(packed.numpy(), bitorder="little")
    if kind == "cross-filter":
        position = _from_bits(bits, count, count)
    else:
        split = filters * _width(filters)
        rank_of_filter = _from_bits(bits[:split], filters, filters)
        rank_in_filter = _from_bits(bits[split:], count, channels).reshape(filters, channels)
        position = (rank_of_filter[:, None] * channels + rank_in_filter).flatten()
    if not np.array_equal(np.sort(position), np.arange(count)):
        raise ValueError("the bits are not a permutation of the layer's kernels")
    return torch.from_numpy(position)


def _unit(kernels: Tensor) -> Tensor:
    norms: Tensor = kernels.norm(dim=1, keepdim=True)
    return kernels / norms.clamp_min(TINY)


def _invert(path: Tensor) -> Tensor:
    inverse = torch.empty_like(path)
    inverse[path] = torch.arange(path.numel())
    return inverse


def _width(count: int) -> int:
    return math.ceil(math.log2(count)) if count > 1 else 0


def _to_bits(ranks: Tensor, count: int) -> npt.NDArray[np.uint8]:
    shifts = np.arange(_width(count))
    return ((ranks.numpy()[:, None] >> shifts) & 1).astype(np.uint8).ravel()


def _from_bits(bits: npt.NDArray[np.uint8], ranks: int, count: int) -> npt.NDArray[np.int64]:
    width = _width(count)
    if bits.size < ranks * width:
        raise ValueError("too few bits for the layer's kernels")
    table = bits[: ranks * width].reshape(ranks, width).astype(np.int64)
    return table @ (1 << np.arange(width, dtype=np.int64))
