"""Resize: interpolation along each axis, with every coordinate transformation of ONNX but tf_crop_and_resize."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nern.graph.operators.onnx.values import Ints, Value, ints, tensor
from nern.graph.operators.registry import operator

# What F.interpolate computes in the same way. It is faster than the general way below.
_TORCH_MODES = {
    ("nearest", "asymmetric", "floor"): ("nearest", None),
    ("linear", "half_pixel", ""): ("linear", False),
    ("linear", "pytorch_half_pixel", ""): ("linear", False),
    ("linear", "align_corners", ""): ("linear", True),
}
_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


@operator("onnx.Resize")
def resize(
    x: Tensor,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Ints | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """Either `scales` or `sizes` is given, for all axes or for `axes`. `roi` is not used."""
    chosen = [axis % x.ndim for axis in axes] if axes is not None else list(range(x.ndim))
    factors = [1.0] * x.ndim
    extents = list(x.shape)
    if sizes is not None and len(wanted := ints(sizes)):
        ratios = [size / x.shape[axis] for size, axis in zip(wanted, chosen, strict=True)]
        if keep_aspect_ratio_policy != "stretch":
            ratio = min(ratios) if keep_aspect_ratio_policy == "not_larger" else max(ratios)
            ratios = [ratio] * len(chosen)
            wanted = [math.floor(ratio * x.shape[axis] + 0.5) for axis in chosen]
        for axis, size, ratio in zip(chosen, wanted, ratios, strict=True):
            extents[axis], factors[axis] = size, ratio
    elif scales is not None:
        for axis, factor in zip(chosen, tensor(scales).tolist(), strict=True):
            factors[axis] = factor
            extents[axis] = math.floor(x.shape[axis] * factor)
    changed = [axis for axis in range(x.ndim) if extents[axis] != x.shape[axis] or factors[axis] != 1]
    if not changed:
        return x
    key = (mode, coordinate_transformation_mode, nearest_mode if mode == "nearest" else "")
    whole = all(factors[axis] == extents[axis] / x.shape[axis] for axis in changed)
    plain = min(changed) >= 2 and x.ndim in _LINEAR and not antialias
    # With one element, pytorch_half_pixel takes the first, and half_pixel the same: there is no other rule in torch.
    if key in _TORCH_MODES and whole and plain and all(extents[axis] > 1 for axis in range(2, x.ndim)):
        name, align = _TORCH_MODES[key]
        name = _LINEAR[x.ndim] if name == "linear" else name
        return F.interpolate(x, extents[2:], mode=name, align_corners=align)
    for axis in changed:
        positions = _positions(x.shape[axis], extents[axis], factors[axis], coordinate_transformation_mode)
        if mode == "nearest":
            x = x.index_select(axis, _nearest(positions, x.shape[axis], nearest_mode).to(x.device))
            continue
        matrix = _matrix(positions, x.shape[axis], factors[axis], mode, cubic_coeff_a, bool(exclude_outside), bool(antialias))
        x = F.linear(x.transpose(axis, -1), matrix.to(x)).transpose(axis, -1)
    return x


def _positions(size: int, wanted: int, factor: float, transformation: str) -> Tensor:
    """For each element of the resized axis, where it lies on the axis. In float32, as onnxruntime rounds."""
    place = torch.arange(wanted, dtype=torch.float32)
    if transformation == "asymmetric":
        return place / factor
    if transformation == "align_corners":
        return place * (size - 1) / max(1, wanted - 1)
    if transformation == "pytorch_half_pixel" and wanted == 1:
        return place * 0
    if transformation == "half_pixel_symmetric":
        # The part of the axis that the whole elements cover is centred.
        offset = size / 2 * (1 - wanted / (factor * size))
        return offset + (place + 0.5) / factor - 0.5
    return (place + 0.5) / factor - 0.5


def _nearest(positions: Tensor, size: int, rounding: str) -> Tensor:
    if rounding == "floor":
        rounded = positions.floor()
    elif rounding == "ceil":
        rounded = positions.ceil()
    elif rounding == "round_prefer_ceil":
        rounded = (positions + 0.5).floor()
    else:
        rounded = (positions - 0.5).ceil()
    return rounded.long().clamp(0, size - 1)


def _kernel(distance: Tensor, mode: str, a: float) -> Tensor:
    """The weight of an element at this distance: a triangle, or Keys' cubic with the parameter a."""
    distance = distance.abs()
    if mode == "linear":
        return (1 - distance).clamp(min=0)
    inner = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    outer = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, inner, torch.where(distance < 2, outer, 0))


def _matrix(positions: Tensor, size: int, factor: float, mode: str, a: float, exclude_outside: bool, antialias: bool) -> Tensor:
    """The matrix that interpolates an axis of this size, resized x size."""
    stretch = max(1.0, 1 / factor) if antialias else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) * stretch)
    neighbours = positions.floor().unsqueeze(1) + torch.arange(1 - reach, reach + 1)
    weights = _kernel((neighbours - positions.unsqueeze(1)).double() / stretch, mode, a)
    inside = (neighbours >= 0) & (neighbours < size)
    if exclude_outside:
        weights = weights * inside
    weights = weights / weights.sum(1, keepdim=True)
    matrix = torch.zeros(len(positions), size, dtype=torch.float64)
    return matrix.scatter_add(1, neighbours.long().clamp(0, size - 1), weights)
