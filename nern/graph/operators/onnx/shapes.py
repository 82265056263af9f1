"""Operators that change the shape or the order of elements, and the arithmetic of shapes.

Shapes are small int64 tensors in the memory of the CPU, also under torch.vmap, where they do not have the axis of the batch.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nern import tensorfile
from nern.graph.operators.onnx.values import Ints, Value, ints, number, tensor, together
from nern.graph.operators.registry import operator


@operator("onnx.Shape")
def shape(x: Value, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(tensor(x).shape[start:end], dtype=torch.int64)


@operator("onnx.Size")
def size(x: Value) -> Tensor:
    return torch.tensor(tensor(x).numel())


@operator("onnx.ConstantOfShape")
def constant_of_shape(shape: Ints, *, value: float = 0.0, dtype: str = "F32") -> Tensor:
    return torch.full(ints(shape), value, dtype=tensorfile.DTYPES[dtype])


@operator("onnx.Range")
def arange(start: Value, limit: Value, delta: Value) -> Tensor:
    return torch.arange(number(start), number(limit), number(delta))


@operator("onnx.EyeLike")
def eye_like(x: Tensor, *, dtype: str | None = None, k: int = 0) -> Tensor:
    ones = torch.ones(x.shape, dtype=tensorfile.DTYPES[dtype] if dtype else x.dtype, device=x.device)
    return ones.tril(k).triu(k)


@operator("onnx.Reshape")
def reshape(x: Value, shape: Ints, *, allowzero: int = 0) -> Tensor:
    """0 in the shape keeps the extent of this axis, unless `allowzero` is set."""
    x = tensor(x)
    wanted = ints(shape)
    if not allowzero:
        wanted = [x.shape[axis] if extent == 0 else extent for axis, extent in enumerate(wanted)]
    return x.reshape(wanted)


@operator("onnx.Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    # -1 counts from the end, as in a slice, but an axis of the rank itself is allowed too.
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("onnx.Squeeze")
def squeeze(x: Value, axes: Ints | None = None) -> Tensor:
    x = tensor(x)
    return x.squeeze() if axes is None else x.squeeze(ints(axes))


@operator("onnx.Unsqueeze")
def unsqueeze(x: Value, axes: Ints) -> Tensor:
    x = tensor(x)
    chosen = ints(axes)
    for axis in sorted(axis % (x.ndim + len(chosen)) for axis in chosen):
        x = x.unsqueeze(axis)
    return x


@operator("onnx.Transpose")
def transpose(x: Value, *, perm: Sequence[int] | None = None) -> Tensor:
    x = tensor(x)
    return x.permute(list(reversed(range(x.ndim))) if perm is None else list(perm))


@operator("onnx.Expand")
def expand(x: Value, shape: Ints) -> Tensor:
    x = tensor(x)
    return x.expand(torch.broadcast_shapes(x.shape, ints(shape)))


@operator("onnx.Tile")
def tile(x: Value, repeats: Ints) -> Tensor:
    return tensor(x).repeat(ints(repeats))


@operator("onnx.Concat")
def concat(*parts: Value, axis: int) -> Tensor:
    return torch.cat(together(*parts), axis)


@operator("onnx.Split")
def split(x: Value, split: Ints | None = None, *, axis: int = 0, num_outputs: int) -> tuple[Tensor, ...]:
    """Parts of the extents `split`, or `num_outputs` parts of which only the last may be smaller."""
    x = tensor(x)
    parts: tuple[Tensor, ...] = x.split(-(-x.shape[axis] // num_outputs) if split is None else ints(split), axis)
    return parts


@operator("onnx.Slice")
def take_slice(x: Value, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None) -> Tensor:
    x = tensor(x)
    first, last = ints(starts), ints(ends)
    chosen = list(range(len(first))) if axes is None else ints(axes)
    strides = [1] * len(first) if steps is None else ints(steps)
    for start, end, axis, step in zip(first, last, chosen, strides, strict=True):
        start, end, step = slice(start, end, step).indices(x.shape[axis])
        if step > 0:
            x = x[(slice(None),) * (axis % x.ndim) + (slice(start, end, step),)]
        else:
            x = x.index_select(axis, torch.arange(start, end, step, device=x.device) if end < start else _nothing(x))
    return x


def _nothing(x: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.int64, device=x.device)


@operator("onnx.Pad")
def pad(
    x: Tensor, pads: Ints, constant_value: Value | None = None, axes: Ints | None = None, *, mode: str = "constant"
) -> Tensor:
    """`pads` has what is added before each axis, then what is added after each. Negative numbers remove elements."""
    amounts = ints(pads)
    chosen = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in ints(axes)]
    before, after = [0] * x.ndim, [0] * x.ndim
    for position, axis in enumerate(chosen):
        before[axis], after[axis] = amounts[position], amounts[position + len(chosen)]
    if mode == "constant":
        value = 0 if constant_value is None else number(constant_value)
        return F.pad(x, [amount for axis in reversed(range(x.ndim)) for amount in (before[axis], after[axis])], value=value)
    for axis in range(x.ndim):
        if before[axis] or after[axis]:
            indices = torch.arange(-before[axis], x.shape[axis] + after[axis], device=x.device)
            x = x.index_select(axis, _inside(indices, x.shape[axis], mode))
    return x


def _inside(indices: Tensor, extent: int, mode: str) -> Tensor:
    """For indices of a padded axis, the indices of the elements that are repeated there."""
    if mode == "edge":
        return indices.clamp(0, extent - 1)
    if mode == "wrap":
        return indices % extent
    period = max(1, 2 * (extent - 1))
    folded = indices % period
    return torch.minimum(folded, period - folded)


@operator("onnx.DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    n, c, h, w = x.shape
    blocks = x.reshape(n, blocksize, blocksize, c // blocksize**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // blocksize**2, h * blocksize, w * blocksize)


@operator("onnx.SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * blocksize**2, h // blocksize, w // blocksize)


@operator("onnx.Trilu")
def trilu(x: Value, k: Value = 0, *, upper: int = 1) -> Tensor:
    diagonal = int(number(k))
    return tensor(x).triu(diagonal) if upper else tensor(x).tril(diagonal)
