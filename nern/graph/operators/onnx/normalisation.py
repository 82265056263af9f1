"""Normalisation layers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nern.graph.operators.registry import operator


def _by_channel(vector: Tensor, x: Tensor) -> Tensor:
    """A vector with an element for each channel, shaped to be multiplied with `x`."""
    return vector.reshape(-1, *[1] * (x.ndim - 2))


@operator("onnx.BatchNormalization")
def batch_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float = 1e-5, momentum: float = 0.9
) -> Tensor:
    """With the statistics that the network has. `momentum` is for training, so it is not used."""
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


@operator("onnx.InstanceNormalization")
def instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    normal = F.layer_norm(x, x.shape[2:], eps=epsilon)
    return normal * _by_channel(scale, x) + _by_channel(bias, x)


@operator("onnx.GroupNormalization")
def group_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5, by_group: bool = False
) -> Tensor:
    """`scale` and `bias` have an element for each channel or, with `by_group` (before opset 21), for each group."""
    if by_group:
        channels = x.shape[1] // num_groups
        scale, bias = scale.repeat_interleave(channels), bias.repeat_interleave(channels)
    groups = x.reshape(x.shape[0], num_groups, -1)
    normal = F.layer_norm(groups, groups.shape[2:], eps=epsilon).reshape(x.shape)
    return normal * _by_channel(scale, x) + _by_channel(bias, x)


@operator("onnx.LayerNormalization")
def layer_normalization(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5
) -> Tensor:
    shape = x.shape[axis:]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    normal = F.layer_norm(x, shape, eps=epsilon) * scale
    return normal if bias is None else normal + bias


@operator("onnx.RMSNormalization")
def rms_normalization(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5) -> Tensor:
    axes = tuple(range(axis % x.ndim, x.ndim))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + epsilon) * scale


@operator("onnx.LRN")
def local_response_normalization(
    x: Tensor, *, size: int, alpha: float = 0.0001, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    channels = x.shape[1]
    before, after = (size - 1) // 2, size // 2
    squares = F.pad(x.square(), [0, 0] * (x.ndim - 2) + [before, after])
    sums = squares.narrow(1, 0, channels)
    for start in range(1, size):
        sums = sums + squares.narrow(1, start, channels)
    return x / (bias + alpha / size * sums) ** beta


@operator("onnx.MeanVarianceNormalization")
def mean_variance_normalization(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    variance, mean = torch.var_mean(x, list(axes), correction=0, keepdim=True)
    return (x - mean) / (variance.sqrt() + 1e-9)


@operator("onnx.LpNormalization")
def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    return F.normalize(x, p=float(p), dim=axis)
