"""Batch norms, convolutions and sums in the forward passes of a program."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nern.graph.program import Node, Program

# Batch norms of torch, and the position of epsilon among their arguments.
EPSILON_POSITION = {
    "aten.batch_norm.default": 7,
    "aten.native_batch_norm.default": 7,
    "aten.cudnn_batch_norm.default": 7,
    "aten.miopen_batch_norm.default": 7,
    "aten._native_batch_norm_legit.default": 7,
    "aten._native_batch_norm_legit_functional.default": 7,
    "aten._batch_norm_with_update.default": 6,
    "aten._batch_norm_with_update_functional.default": 6,
    "aten._batch_norm_no_update.default": 6,
    "aten._native_batch_norm_legit_no_training.default": 6,
}
DEFAULT_EPSILON = 1e-5

NORMS = {*EPSILON_POSITION, "onnx.BatchNormalization"}

CONVOLUTIONS = {
    "aten.conv1d.default",
    "aten.conv2d.default",
    "aten.conv3d.default",
    "aten.conv1d.padding",
    "aten.conv2d.padding",
    "aten.conv3d.padding",
    "aten.conv_transpose1d.default",
    "aten.conv_transpose2d.input",
    "aten.conv_transpose3d.input",
    "aten.convolution.default",
    "onnx.Conv",
    "onnx.ConvTranspose",
}

SUMS = {"aten.add.Tensor", "onnx.Add"}


@dataclass(frozen=True)
class NormCall:
    """One call of a batch norm: the input (B, C, ...), and the stored mean and variance (C,)."""

    input: Tensor
    mean: Tensor
    variance: Tensor
    epsilon: float


def norm_call(node: Node, arguments: Sequence[Any]) -> NormCall | None:
    """The call of the batch norm with stored statistics that a node makes, or None for every other node."""
    if node.operator not in NORMS or len(arguments) < 5:
        return None
    x, mean, variance = arguments[0], arguments[3], arguments[4]
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
        return None
    position = EPSILON_POSITION.get(node.operator, len(arguments))
    given = arguments[position] if position < len(arguments) else node.keywords.get("eps", node.keywords.get("epsilon"))
    return NormCall(x, mean, variance, float(given) if isinstance(given, int | float) else DEFAULT_EPSILON)


def has_statistics(program: Program) -> bool:
    """Whether a batch norm of the program stores statistics. Batch norms that were folded into convolutions store none."""
    return any(node.operator in NORMS and len(node.arguments) >= 5 and node.arguments[3] is not None for node in program.nodes)


def is_residual_sum(node: Node, arguments: Sequence[Any]) -> bool:
    """Whether a node adds two feature maps of one shape (B, C, ...)."""
    if node.operator not in SUMS or len(arguments) < 2:
        return False
    left, right = arguments[:2]
    both = isinstance(left, Tensor) and isinstance(right, Tensor)
    return both and left.ndim > 2 and left.shape == right.shape
