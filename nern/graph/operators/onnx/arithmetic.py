"""Arithmetic, comparison and logic on elements, and matrix products."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nern import tensorfile
from nern.graph.operators.onnx.values import Value, tensor, together
from nern.graph.operators.registry import operator

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Value], Tensor]:
    def call(x: Value) -> Tensor:
        return function(tensor(x))

    return call


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Value, Value], Tensor]:
    def call(a: Value, b: Value) -> Tensor:
        return function(*together(a, b))

    return call


for _name, _function in _UNARY.items():
    operator(f"onnx.{_name}")(_unary(_function))
for _name, _pair in _BINARY.items():
    operator(f"onnx.{_name}")(_binary(_pair))


@operator("onnx.Div")
def div(a: Value, b: Value) -> Tensor:
    """The quotient. That of integers is rounded towards zero."""
    a, b = together(a, b)
    if a.is_floating_point():
        return a / b
    # The processor stops the process where the smallest integer is divided by -1.
    negative = b == -1
    return torch.where(negative, -a, torch.div(a, torch.where(negative, 1, b), rounding_mode="trunc"))


@operator("onnx.Mod")
def mod(a: Value, b: Value, *, fmod: int = 0) -> Tensor:
    """The remainder, with the sign of the dividend (`fmod`) or of the divisor."""
    a, b = together(a, b)
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@operator("onnx.Pow")
def power(a: Value, b: Value) -> Tensor:
    if isinstance(b, int | float):
        a = tensor(a)
        return a.pow(b).to(a.dtype)
    a, b = together(a, b)
    return a.pow(b).to(a.dtype)


@operator("onnx.Max")
def maximum(*values: Value) -> Tensor:
    return functools.reduce(torch.maximum, together(*values))


@operator("onnx.Min")
def minimum(*values: Value) -> Tensor:
    return functools.reduce(torch.minimum, together(*values))


@operator("onnx.Sum")
def total(*values: Value) -> Tensor:
    return functools.reduce(torch.add, together(*values))


@operator("onnx.Mean")
def mean(*values: Value) -> Tensor:
    average: Tensor = total(*values) / len(values)
    return average


@operator("onnx.Where")
def where(condition: Value, a: Value, b: Value) -> Tensor:
    condition, a, b = together(condition, a, b)
    return torch.where(condition, a, b)


@operator("onnx.IsInf")
def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    return (x.isposinf() & bool(detect_positive)) | (x.isneginf() & bool(detect_negative))


@operator("onnx.Cast")
def cast(x: Value, *, to: str) -> Tensor:
    """The elements in another dtype, in the notation of safetensors. Numbers are cut off, not rounded, to integers."""
    return tensor(x).to(tensorfile.DTYPES[to])


@operator("onnx.CastLike")
def cast_like(x: Value, like: Tensor) -> Tensor:
    return tensor(x).to(like.dtype)


@operator("onnx.Gemm")
def gemm(
    a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0
) -> Tensor:
    a = a.mT if transA else a
    if alpha == 1 and beta == 1 and (c is None or c.ndim == 1):
        return F.linear(a, b if transB else b.mT, c)
    product = alpha * (a @ (b.mT if transB else b))
    return product if c is None else product + beta * c


@operator("onnx.Einsum")
def einsum(*values: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *values)
