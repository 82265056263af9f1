"""Small ONNX files, and what onnxruntime makes of a file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

CODES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.bool_): TensorProto.BOOL,
}


def model_of(graph: GraphProto, opset: int, **fields: Any) -> ModelProto:
    """A model of this graph and opset."""
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 19 else 10, **fields
    )


def graph_of(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, np.ndarray[Any, Any]],
    outputs: Sequence[str] = ("y",),
    initialisers: Mapping[str, np.ndarray[Any, Any]] | None = None,
    output_type: int = TensorProto.FLOAT,
) -> GraphProto:
    """A graph whose inputs have the dtypes and shapes of these arrays. The shapes of outputs are unknown."""
    return helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, CODES[array.dtype], array.shape) for name, array in inputs.items()],
        [helper.make_tensor_value_info(name, output_type, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (initialisers or {}).items()],
    )


def run(content: bytes, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What onnxruntime computes with a file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    named = {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, named)]
