"""Batch norms and residual sums in the forward passes of a program."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nern.graph.program import Node, Program
from nern.graph.roles import NORMS, SUMS, epsilon


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
    return NormCall(x, mean, variance, epsilon(node, arguments))


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
