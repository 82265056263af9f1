"""Pooling, in one to three dimensions."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nern.graph.operators.onnx.convolution import Pads, is_symmetric, pad_spatial, resolve_pads
from nern.graph.operators.onnx.values import spatial
from nern.graph.operators.registry import operator

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _overhang(x: Tensor, extents: Sequence[int], strides: Sequence[int], pads: Pads) -> list[int]:
    """With `ceil_mode`: by how much the last window of each axis exceeds the padded axis.

    A window that would begin in the padding after the axis is left out.
    """
    over = []
    for size, extent, stride, (before, after) in zip(x.shape[2:], extents, strides, pads, strict=True):
        count = math.ceil((size + before + after - extent) / stride) + 1
        if (count - 1) * stride >= size + before:
            count -= 1
        over.append(max(0, (count - 1) * stride + extent - (size + before + after)))
    return over


@operator("onnx.MaxPool")
def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    count = spatial(x)
    strides, dilations = list(strides or [1] * count), list(dilations or [1] * count)
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel_shape, dilations, strict=True)]
    around = resolve_pads(x, extents, strides, auto_pad, pads)
    if ceil_mode:
        over = _overhang(x, extents, strides, around)
        around = [(before, after + more) for (before, after), more in zip(around, over, strict=True)]
    padding = [before for before, _ in around]
    # torch pads by half of a kernel at most.
    if not is_symmetric(around) or any(2 * before > size for before, size in zip(padding, kernel_shape, strict=True)):
        x, padding = pad_spatial(x, around, -math.inf), [0] * count
    return _MAX[count](x, list(kernel_shape), strides, padding, dilations)


@operator("onnx.AveragePool")
def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    count = spatial(x)
    strides, dilations = list(strides or [1] * count), list(dilations or [1] * count)
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel_shape, dilations, strict=True)]
    around = resolve_pads(x, extents, strides, auto_pad, pads)
    over = _overhang(x, extents, strides, around) if ceil_mode else [0] * count
    plain = all(before == after == 0 for before, after in around)
    if not any(over) and all(dilation == 1 for dilation in dilations) and (plain or count_include_pad):
        return _AVERAGE[count](pad_spatial(x, around), list(kernel_shape), strides)
    # The sum of each window, divided by the number of elements that count.
    counted = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    counted = pad_spatial(counted, around, 1.0 if count_include_pad else 0.0)
    beyond = [(0, more) for more in over]
    sums = _window_sums(pad_spatial(pad_spatial(x, around), beyond), kernel_shape, strides, dilations)
    return sums / _window_sums(pad_spatial(counted, beyond), kernel_shape, strides, dilations)


def _window_sums(x: Tensor, kernel_shape: Sequence[int], strides: list[int], dilations: list[int]) -> Tensor:
    ones = torch.ones(1, 1, *kernel_shape, dtype=x.dtype, device=x.device)
    sums = _CONVOLUTIONS[spatial(x)](x.flatten(0, 1).unsqueeze(1), ones, None, strides, 0, dilations)
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


@operator("onnx.GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@operator("onnx.GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)
