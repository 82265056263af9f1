"""Reductions, cumulative sums, and the choice of the largest elements."""

from collections.abc import Callable

import torch
from torch import Tensor

from nern.graph.operators.onnx.values import Ints, Value, ints, number, tensor
from nern.graph.operators.registry import operator

Axes = list[int]


def _prod(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _max(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return x.any(axes, keep) if x.dtype == torch.bool else x.amax(axes, keep)


def _min(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return x.all(axes, keep) if x.dtype == torch.bool else x.amin(axes, keep)


_REDUCTIONS: dict[str, Callable[[Tensor, Axes, bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keep),
    "ReduceMax": _max,
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMin": _min,
    "ReduceProd": _prod,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep, dtype=x.dtype),
}


def _reduction(function: Callable[[Tensor, Axes, bool], Tensor]) -> Callable[..., Tensor]:
    def call(x: Value, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
        x = tensor(x)
        chosen = [axis % x.ndim for axis in ints(axes)] if axes is not None else []
        if not chosen and noop_with_empty_axes:
            return x
        chosen = chosen or list(range(x.ndim))
        return function(x, chosen, bool(keepdims)) if chosen else x

    return call


for _name, _function in _REDUCTIONS.items():
    operator(f"onnx.{_name}")(_reduction(_function))


@operator("onnx.ArgMax")
def argmax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    if select_last_index:
        return x.shape[axis] - 1 - x.flip(axis).argmax(axis, keepdim=bool(keepdims))
    return x.argmax(axis, keepdim=bool(keepdims))


@operator("onnx.ArgMin")
def argmin(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    least: Tensor = argmax(-x, axis=axis, keepdims=keepdims, select_last_index=select_last_index)
    return least


@operator("onnx.TopK")
def topk(x: Tensor, k: Ints, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:
    values, indices = x.topk(ints(k)[0], axis, bool(largest), bool(sorted))
    return values, indices


@operator("onnx.CumSum")
def cumsum(x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    x = tensor(x)
    along = int(number(axis))
    ordered = x.flip(along) if reverse else x
    sums = ordered.cumsum(along, dtype=x.dtype)
    if exclusive:
        sums = sums - ordered
    return sums.flip(along) if reverse else sums
