"""Activation functions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nern.graph.operators.onnx.values import Number, Value, number, tensor
from nern.graph.operators.registry import operator


@operator("onnx.Relu")
def relu(x: Tensor) -> Tensor:
    return x.relu()


@operator("onnx.LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


@operator("onnx.PRelu")
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


@operator("onnx.ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return torch.where(x > alpha, x, 0)


@operator("onnx.Clip")
def clip(x: Value, min: Number | None = None, max: Number | None = None) -> Tensor:
    x = tensor(x)
    if min is not None:
        x = (
            torch.maximum(x, torch.as_tensor(min, dtype=x.dtype, device=x.device))
            if isinstance(min, Tensor)
            else x.clamp(min=number(min))
        )
    if max is not None:
        x = (
            torch.minimum(x, torch.as_tensor(max, dtype=x.dtype, device=x.device))
            if isinstance(max, Tensor)
            else x.clamp(max=number(max))
        )
    return x


@operator("onnx.Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


@operator("onnx.Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


@operator("onnx.Selu")
def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    return gamma * F.elu(x, alpha)


@operator("onnx.Sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    return x.sigmoid()


@operator("onnx.HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


@operator("onnx.HardSwish")
def hard_swish(x: Tensor) -> Tensor:
    return F.hardswish(x)


@operator("onnx.Swish")
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return x * (alpha * x).sigmoid()


@operator("onnx.Mish")
def mish(x: Tensor) -> Tensor:
    return F.mish(x)


@operator("onnx.Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


@operator("onnx.Softplus")
def softplus(x: Tensor) -> Tensor:
    return F.softplus(x)


@operator("onnx.Softsign")
def softsign(x: Tensor) -> Tensor:
    return F.softsign(x)


@operator("onnx.Tanh")
def tanh(x: Tensor) -> Tensor:
    return x.tanh()


@operator("onnx.Shrink")
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, 0))


def _flattened(x: Tensor, axis: int) -> Tensor:
    """A matrix whose columns are the axes from `axis` on."""
    return x.flatten(axis).unsqueeze(0) if axis % x.ndim == 0 else x.flatten(axis).flatten(0, axis - 1 if axis > 0 else -2)


@operator("onnx.Softmax")
def softmax(x: Tensor, *, axis: int = -1, flatten: bool = False) -> Tensor:
    """With `flatten` (before opset 13), over all axes from `axis` on."""
    return _flattened(x, axis).softmax(-1).reshape(x.shape) if flatten else x.softmax(axis)


@operator("onnx.LogSoftmax")
def log_softmax(x: Tensor, *, axis: int = -1, flatten: bool = False) -> Tensor:
    """With `flatten` (before opset 13), over all axes from `axis` on."""
    return _flattened(x, axis).log_softmax(-1).reshape(x.shape) if flatten else x.log_softmax(axis)


@operator("onnx.Hardmax")
def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    largest = x.argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, largest, 1.0)


@operator("onnx.Dropout")
def dropout(x: Tensor, ratio: Value | None = None, training_mode: Value = False) -> Tensor:
    """The input: networks run as in inference."""
    assert not number(training_mode), "a dropout that is on has been refused"
    return x
