"""What operators are to those who look for layers in a program. This module does not import torch."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nern.graph.program import Node

Activation = Literal["softmax", "log_softmax", "sigmoid"]

# For convolutions of torch: the places of strides and groups among the arguments.
CONVOLUTION_PLACES = {f"aten.conv{n}d.{overload}": (3, 6) for n in (1, 2, 3) for overload in ("default", "padding")} | {
    "aten.conv_transpose1d.default": (3, 6),
    "aten.conv_transpose2d.input": (3, 6),
    "aten.conv_transpose3d.input": (3, 6),
    "aten.convolution.default": (3, 8),
}
CONVOLUTIONS = {*CONVOLUTION_PLACES, "onnx.Conv", "onnx.ConvTranspose"}

# For batch norms of torch: the place of epsilon. Input, weight, bias, mean and variance come first in all of them.
EPSILON_PLACES = {
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
NORMS = {*EPSILON_PLACES, "onnx.BatchNormalization"}
DEFAULT_EPSILON = 1e-5

SUMS = {"aten.add.Tensor", "onnx.Add"}

# The result has the elements of the first argument.
SAME = {
    "aten.alias.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.lift_fresh.default",
    "aten.lift_fresh_copy.default",
    "aten.to.dtype",
    "aten.to.device",
    "aten._to_copy.default",
    "onnx.Identity",
    "onnx.Cast",
    "onnx.CastLike",
}
# The result has the elements of the first argument, perhaps in another order.
PASSED = SAME | {
    "aten.view.default",
    "aten.reshape.default",
    "aten.permute.default",
    "aten.squeeze.dim",
    "aten.transpose.int",
    "onnx.Reshape",
    "onnx.Transpose",
    "onnx.Squeeze",
}
ACTIVATIONS: Mapping[str, Activation] = {
    "aten.softmax.int": "softmax",
    "aten._softmax.default": "softmax",
    "aten._safe_softmax.default": "softmax",
    "onnx.Softmax": "softmax",
    "aten.log_softmax.int": "log_softmax",
    "aten._log_softmax.default": "log_softmax",
    "onnx.LogSoftmax": "log_softmax",
    "aten.sigmoid.default": "sigmoid",
    "onnx.Sigmoid": "sigmoid",
}


def epsilon(node: Node, arguments: Sequence[Any]) -> float:
    """The epsilon of a batch norm that is called with these arguments."""
    place = EPSILON_PLACES.get(node.operator, len(arguments))
    given = arguments[place] if place < len(arguments) else node.keywords.get("eps", node.keywords.get("epsilon"))
    return float(given) if isinstance(given, int | float) else DEFAULT_EPSILON
