"""Gathering and scattering of elements."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nern.graph.operators.onnx.values import Value, number, tensor, together
from nern.graph.operators.registry import operator

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _positive(indices: Tensor, extent: int) -> Tensor:
    """Indices that are negative count from the end."""
    return torch.where(indices < 0, indices + extent, indices).long()


@operator("onnx.Gather")
def gather(x: Value, indices: Value, *, axis: int = 0) -> Tensor:
    """Slices along an axis. `indices` of any shape takes the place of the axis."""
    if isinstance(indices, int):
        return tensor(x).select(axis, indices)
    x, indices = together(x, indices)
    axis %= x.ndim
    found = x.index_select(axis, _positive(indices, x.shape[axis]).flatten())
    return found.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


@operator("onnx.GatherElements")
def gather_elements(x: Value, indices: Value, *, axis: int = 0) -> Tensor:
    x, indices = together(x, indices)
    return x.gather(axis, _positive(indices, x.shape[axis]))


def _rows(indices: Tensor, extents: tuple[int, ...]) -> Tensor:
    """Indices into several axes (the last axis of `indices`) as indices into these axes, flattened."""
    rows = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for axis, extent in enumerate(extents):
        rows = rows * extent + _positive(indices[..., axis], extent)
    return rows


@operator("onnx.GatherND")
def gather_nd(x: Value, indices: Value, *, batch_dims: int = 0) -> Tensor:
    x, indices = together(x, indices)
    shape = indices.shape[:-1] + x.shape[batch_dims + indices.shape[-1] :]
    extents = x.shape[batch_dims : batch_dims + indices.shape[-1]]
    rows = _rows(indices, extents)
    if batch_dims:
        batches = x.shape[:batch_dims].numel()
        first = torch.arange(batches, device=x.device).unsqueeze(1) * extents.numel()
        rows = rows.reshape(batches, -1) + first
    flat = x.flatten(0, batch_dims + indices.shape[-1] - 1)
    return flat.index_select(0, rows.flatten()).reshape(shape)


@operator("onnx.ScatterND")
def scatter_nd(x: Value, indices: Value, updates: Value, *, reduction: str = "none") -> Tensor:
    x, indices, updates = together(x, indices, updates)
    extents = x.shape[: indices.shape[-1]]
    flat = x.reshape(extents.numel(), -1)
    rows = _rows(indices, extents).reshape(-1, 1).expand(-1, flat.shape[1])
    return _scattered(flat, 0, rows, updates.reshape(rows.shape), reduction).reshape(x.shape)


@operator("onnx.ScatterElements")
def scatter_elements(x: Value, indices: Value, updates: Value, *, axis: int = 0, reduction: str = "none") -> Tensor:
    x, indices, updates = together(x, indices, updates)
    return _scattered(x, axis, _positive(indices, x.shape[axis]), updates, reduction)


def _scattered(x: Tensor, axis: int, indices: Tensor, updates: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return x.scatter(axis, indices, updates)
    return x.scatter_reduce(axis, indices, updates, _REDUCTIONS[reduction])


@operator("onnx.NonZero")
def non_zero(x: Value) -> Tensor:
    return tensor(x).nonzero().mT


@operator("onnx.OneHot")
def one_hot(indices: Value, depth: Value, values: Value, *, axis: int = -1) -> Tensor:
    indices, values = together(indices, values)
    count = int(number(depth))
    classes = torch.arange(count, device=indices.device)
    axis = axis % (indices.ndim + 1)
    chosen = _positive(indices, count).unsqueeze(axis) == classes.reshape(-1, *[1] * (indices.ndim - axis))
    return torch.where(chosen, values[1], values[0])


_MODES = {"linear": "bilinear", "cubic": "bicubic"}


@operator("onnx.GridSample")
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    return F.grid_sample(x, grid, _MODES.get(mode, mode), padding_mode, bool(align_corners))
