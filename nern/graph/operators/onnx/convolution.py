"""Convolutions, in one to three dimensions, and the padding that they share with pooling."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from nern.graph.operators.onnx.values import spatial
from nern.graph.operators.registry import operator

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

Pads = list[tuple[int, int]]
"""For each spatial axis, what is added before and after it."""


def resolve_pads(
    x: Tensor,
    extents: Sequence[int],
    strides: Sequence[int],
    auto_pad: str,
    pads: Sequence[int] | None,
) -> Pads:
    """The padding of an operator with windows. `extents` are those of a window, with its dilation."""
    count = spatial(x)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        found = []
        for size, extent, stride in zip(x.shape[2:], extents, strides, strict=True):
            needed = max(0, (-(-size // stride) - 1) * stride + extent - size)
            less, more = needed // 2, needed - needed // 2
            found.append((less, more) if auto_pad == "SAME_UPPER" else (more, less))
        return found
    if auto_pad == "VALID" or pads is None:
        return [(0, 0)] * count
    return list(zip(pads[:count], pads[count:], strict=True))


def pad_spatial(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """Adds (or, for negative numbers, removes) elements at the ends of the spatial axes."""
    if not any(before or after for before, after in pads):
        return x
    return F.pad(x, [number for pair in reversed(pads) for number in pair], value=value)


def is_symmetric(pads: Pads) -> bool:
    """Whether torch's argument `padding` can express the padding."""
    return all(before == after >= 0 for before, after in pads)


@operator("onnx.Conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """`kernel_shape` is that of the weight, so it is not used."""
    count = spatial(weight)
    strides, dilations = list(strides or [1] * count), list(dilations or [1] * count)
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(weight.shape[2:], dilations, strict=True)]
    around = resolve_pads(x, extents, strides, auto_pad, pads)
    padding = [before for before, _ in around]
    if not is_symmetric(around):
        x, padding = pad_spatial(x, around), [0] * count
    return _CONVOLUTIONS[count](x, weight, bias, strides, padding, dilations, group)


@operator("onnx.ConvTranspose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """`kernel_shape` is that of the weight, so it is not used."""
    count = spatial(weight)
    strides, dilations = list(strides or [1] * count), list(dilations or [1] * count)
    output_padding = list(output_padding or [0] * count)
    if output_shape is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        output_shape = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if output_shape is None:
        around = resolve_pads(x, [], strides, auto_pad, pads)
    else:
        around = []
        for axis, size in enumerate(output_shape[-count:]):
            extent = (weight.shape[2 + axis] - 1) * dilations[axis] + 1
            removed = strides[axis] * (x.shape[2 + axis] - 1) + output_padding[axis] + extent - size
            less, more = removed // 2, removed - removed // 2
            around.append((less, more) if auto_pad == "SAME_UPPER" else (more, less))
    if is_symmetric(around):
        padding = [before for before, _ in around]
        return _TRANSPOSED[count](x, weight, bias, strides, padding, output_padding, group, dilations)
    y = _TRANSPOSED[count](x, weight, bias, strides, 0, output_padding, group, dilations)
    return pad_spatial(y, [(-before, -after) for before, after in around])
