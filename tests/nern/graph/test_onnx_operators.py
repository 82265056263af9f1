"""Each operator of ONNX computes what onnxruntime computes, in each version whose meaning differs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from nern.graph.interpreter import GraphNetwork
from nern.graph.onnx_model import read
from tests.support.onnx_files import graph_of, model_of, run

Array = np.ndarray[Any, Any]


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> Array:
    return np.abs(floats(*shape)) + np.float32(0.1)


def ints(*values: Any) -> Array:
    return np.array(values, np.int64)


def scalar(value: Any, dtype: Any = np.int64) -> Array:
    return np.array(value, dtype)


EMPTY = np.zeros(0, np.float32)
TRUTHS = np.array([[True, False, True], [False, False, True]])


@dataclass(frozen=True)
class Case:
    """One node. The first array is the input of the network; the others are initialisers, and None is an input left out."""

    operator: str
    opset: int
    arrays: tuple[Array | None, ...]
    attributes: dict[str, Any]
    outputs: int = 1
    output_type: int = TensorProto.FLOAT
    differentiable: bool = True

    def __str__(self) -> str:
        attributes = ",".join(f"{name}={value}" for name, value in self.attributes.items())
        return f"{self.operator}-{self.opset}({attributes})"


def case(
    operator: str, opset: int, *arrays: Array | None, outputs: int = 1, to: int = TensorProto.FLOAT, **attributes: Any
) -> Case:
    differentiable = arrays[0] is not None and arrays[0].dtype == np.float32 and to == TensorProto.FLOAT
    return Case(operator, opset, arrays, attributes, outputs, to, differentiable and operator not in STEPS)


STEPS = ("Ceil", "Floor", "Round", "Sign", "Hardmax", "ConstantOfShape", "EyeLike")
INT64, BOOL = TensorProto.INT64, TensorProto.BOOL

X2, X3, X4, X5 = floats(3, 4), floats(2, 3, 8), floats(2, 4, 7, 6), floats(1, 2, 4, 5, 6)
LSTM_WEIGHTS = (floats(1, 20, 4), floats(1, 20, 5, seed=1), floats(1, 40, seed=2))
BOTH_LSTM = (floats(2, 20, 4), floats(2, 20, 5, seed=1), floats(2, 40, seed=2))
GRU_WEIGHTS = (floats(1, 15, 4), floats(1, 15, 5, seed=1), floats(1, 30, seed=2))
BOTH_GRU = (floats(2, 15, 4), floats(2, 15, 5, seed=1), floats(2, 30, seed=2))
BOTH_RNN = (floats(2, 5, 4), floats(2, 5, 5, seed=1), floats(2, 10, seed=2))
SEQUENCE = floats(6, 2, 4)
TABLES = (np.cos(floats(10, 3)), np.sin(floats(10, 3)))

CASES = [
    *[case(name, 13, X2) for name in ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Neg", "Relu", "Round", "Sign")],
    *[case(name, 13, X2) for name in ("Sigmoid", "Sin")],
    *[case(name, 13, X2) for name in ("Softplus", "Softsign", "Tanh", "Identity", "Atan", "Sinh", "Cosh", "Asinh")],
    *[case(name, 13, positive(3, 4)) for name in ("Sqrt", "Log", "Reciprocal")],
    *[case(name, 13, (floats(3, 4) / 4).clip(-0.9, 0.9)) for name in ("Acos", "Asin", "Atanh", "Tan")],
    case("Acosh", 13, positive(3) + 1),
    *[case(name, 7, X2, floats(4)) for name in ("Add", "Sub", "Mul", "Div")],
    *[case(name, 14, scalar([7, -7, 3]), scalar([2, 2, -2]), to=INT64) for name in ("Add", "Sub", "Mul", "Div")],
    case("Mod", 13, ints(7, -7, 5), ints(3, 3, -3), to=INT64),
    case("Mod", 13, floats(5), floats(5, seed=1), fmod=1),
    case("Pow", 7, positive(3, 4), scalar(2.5, np.float32)),
    case("Pow", 15, X2, ints(2)),
    case("Pow", 15, positive(3, 4), floats(4)),
    *[case(name, 13, X2, floats(3, 4, seed=1), floats(4, seed=2)) for name in ("Max", "Min", "Sum", "Mean")],
    *[case(name, 13, X2, floats(3, 4, seed=1), to=BOOL) for name in ("Equal", "Greater", "Less")],
    *[case(name, 16, X2, floats(3, 4, seed=1), to=BOOL) for name in ("GreaterOrEqual", "LessOrEqual")],
    *[case(name, 7, TRUTHS, ~TRUTHS[:1], to=BOOL) for name in ("And", "Or", "Xor")],
    case("Not", 1 + 6, TRUTHS, to=BOOL),
    case("Where", 16, TRUTHS, floats(2, 3), floats(3, seed=1)),
    case("IsNaN", 13, np.array([1, np.nan], np.float32), to=BOOL),
    case("IsInf", 10, np.array([1, np.inf, -np.inf], np.float32), detect_negative=0, to=BOOL),
    case("Cast", 13, floats(5) * 4, to=INT64),
    case("Cast", 13, floats(5), to=BOOL),
    case("CastLike", 15, ints(1, 2), floats(1)),
    # Activations.
    case("Clip", 7, X2, min=-0.5, max=0.25),
    case("Clip", 13, X2, scalar(-0.5, np.float32), scalar(0.25, np.float32)),
    case("Clip", 13, X2, None, scalar(0.25, np.float32)),
    case("LeakyRelu", 16, X2, alpha=0.2),
    case("PRelu", 9, X4, floats(4, 1, 1)),
    case("Elu", 6 + 1, X2, alpha=0.7),
    case("Selu", 7, X2),
    case("Celu", 12, X2, alpha=0.7),
    case("ThresholdedRelu", 10, X2, alpha=0.3),
    case("HardSigmoid", 7, X2),
    case("HardSigmoid", 7, X2, alpha=1 / 6),
    case("HardSwish", 14, X2 * 3),
    case("Mish", 18, X2),
    case("Gelu", 20, X2),
    case("Gelu", 20, X2, approximate="tanh"),
    case("Swish", 24, X2, alpha=1.5),
    case("Shrink", 9, X2, lambd=0.3, bias=0.1),
    *[case(name, 11, X4, axis=axis) for name in ("Softmax", "LogSoftmax") for axis in (0, 1, 2, 3, -1, -3)],
    *[case(name, 11, X4) for name in ("Softmax", "LogSoftmax")],
    *[case(name, 13, X4, axis=1) for name in ("Softmax", "LogSoftmax")],
    *[case(name, 13, X4) for name in ("Softmax", "LogSoftmax")],
    case("Hardmax", 13, X2, axis=0),
    case("Dropout", 7, X2, ratio=0.5),
    case("Dropout", 13, X2, scalar(0.5, np.float32), scalar(False, np.bool_)),
    # Products.
    case("MatMul", 13, floats(2, 3, 4), floats(2, 4, 5)),
    case("Gemm", 7, X2, floats(5, 4), floats(5), transB=1),
    case("Gemm", 11, X2, floats(5, 4), transB=1),
    case("Gemm", 13, floats(4, 3), floats(4, 5), floats(3, 1), transA=1, alpha=0.5, beta=2.0),
    case("Einsum", 12, floats(2, 3, 4), floats(2, 4, 5), equation="bij,bjk->bik"),
    # Convolutions.
    case("Conv", 11, X3, floats(6, 3, 3), floats(6), pads=[2, 1], strides=[2]),
    case("Conv", 11, X4, floats(6, 2, 3, 2), floats(6), group=2, dilations=[2, 1], pads=[1, 0, 1, 2]),
    case("Conv", 11, X4, floats(6, 4, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", 11, X4, floats(6, 4, 2, 2), auto_pad="SAME_LOWER", strides=[1, 1], kernel_shape=[2, 2]),
    case("Conv", 22, X4, floats(6, 4, 3, 3), auto_pad="VALID"),
    case("Conv", 11, X5, floats(3, 2, 2, 3, 1), pads=[0, 1, 0, 0, 1, 0]),
    case("ConvTranspose", 11, X3, floats(3, 5, 4), floats(5), strides=[2], pads=[1, 1]),
    case(
        "ConvTranspose", 11, X4, floats(4, 3, 3, 3), floats(6),
        strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1], group=2,
    ),
    case("ConvTranspose", 11, X4, floats(4, 3, 3, 3), strides=[2, 2], pads=[0, 1, 1, 0], dilations=[2, 1]),
    case("ConvTranspose", 11, X4, floats(4, 3, 3, 3), strides=[2, 2], output_shape=[14, 12]),
    case("ConvTranspose", 11, X4, floats(4, 3, 3, 3), strides=[2, 2], output_shape=[14, 12], auto_pad="SAME_UPPER"),
    case("ConvTranspose", 11, X4, floats(4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", 11, X5, floats(2, 3, 2, 2, 2), strides=[2, 2, 2]),
    # Pooling.
    case("MaxPool", 12, X3, kernel_shape=[3], strides=[2], pads=[1, 1]),
    case("MaxPool", 12, X4, kernel_shape=[3, 2], strides=[2, 2], pads=[0, 1, 1, 0], ceil_mode=1),
    case("MaxPool", 12, X4, kernel_shape=[2, 2], dilations=[2, 3]),
    case("MaxPool", 12, X4, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("MaxPool", 12, X4, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case("MaxPool", 8, X5, kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    *[
        case(
            "AveragePool", opset, X4,
            kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1, count_include_pad=count,
        )
        for opset in (11, 19, 22)
        for count in (0, 1)
    ],
    case("AveragePool", 7, X3, kernel_shape=[2], pads=[0, 1]),
    case("AveragePool", 11, X4, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", 11, X4, kernel_shape=[3, 3], auto_pad="SAME_LOWER", strides=[2, 2]),
    case("AveragePool", 19, X4, kernel_shape=[2, 2], dilations=[2, 2]),
    case("AveragePool", 11, X5, kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    case("GlobalAveragePool", 7, X4),
    case("GlobalMaxPool", 7, X5),
    # Normalisation.
    *[case("BatchNormalization", n, X4, floats(4), floats(4, seed=1), floats(4, seed=2), positive(4)) for n in (7, 9, 14, 15)],
    case("BatchNormalization", 15, X2, floats(4), floats(4, seed=1), floats(4, seed=2), positive(4), epsilon=0.01),
    case("InstanceNormalization", 7, X4, floats(4), floats(4, seed=1)),
    case("InstanceNormalization", 22, X3, floats(3), floats(3, seed=1), epsilon=0.1),
    case("LayerNormalization", 17, X4, floats(6), floats(6, seed=1)),
    case("LayerNormalization", 17, X4, floats(7, 6), axis=-2, epsilon=0.1),
    case("LayerNormalization", 17, X4, floats(6), axis=-2, epsilon=0.1),
    case("GroupNormalization", 18, X4, floats(2), floats(2, seed=1), num_groups=2),
    case("GroupNormalization", 21, X4, floats(4), floats(4, seed=1), num_groups=2),
    case("RMSNormalization", 23, X4, floats(6), epsilon=0.01),
    case("LRN", 13, X4, size=3, alpha=0.1, beta=0.6, bias=2.0),
    case("MeanVarianceNormalization", 13, X4),
    case("LpNormalization", 7, X4, axis=1),
    # Shapes.
    case("Shape", 13, X4, to=INT64),
    case("Shape", 15, X4, start=1, end=-1, to=INT64),
    case("Size", 13, X4, to=INT64),
    case("ConstantOfShape", 9, ints(2, 3), value=helper.make_tensor("value", TensorProto.INT64, [1], [7]), to=INT64),
    case("ConstantOfShape", 9, ints(2, 3)),
    case("Range", 11, scalar(1), scalar(9), scalar(3), to=INT64),
    case("EyeLike", 9, X2, k=1),
    case("Reshape", 7, X4, ints(0, -1, 3)),
    case("Reshape", 14, floats(0, 3), ints(3, 0), allowzero=1),
    *[case("Flatten", 13, X4, axis=axis) for axis in (0, 1, 2, 4, -1, -2)],
    case("Squeeze", 11, floats(1, 3, 1, 2), axes=[0, 2]),
    case("Squeeze", 13, floats(1, 3, 1, 2), ints(-2)),
    case("Squeeze", 13, floats(1, 3, 1, 2)),
    case("Unsqueeze", 11, X2, axes=[0, 3]),
    case("Unsqueeze", 13, X2, ints(-1, 1)),
    case("Transpose", 13, X4, perm=[2, 0, 3, 1]),
    case("Transpose", 13, X3),
    case("Expand", 13, floats(3, 1), ints(2, 1, 4)),
    case("Tile", 13, X2, ints(2, 1)),
    case("Concat", 13, X2, floats(3, 2), axis=-1),
    case("Split", 11, X3, outputs=2, axis=2, split=[3, 5]),
    case("Split", 11, X3, outputs=2, axis=2),
    case("Split", 13, X3, ints(3, 5), outputs=2, axis=2),
    case("Split", 18, floats(2, 7), outputs=3, axis=1, num_outputs=3),
    case("Split", 13, X3, outputs=1, axis=2),
    case("Slice", 7, X4, starts=[1, -3], ends=[100, -1], axes=[1, 3]),
    case("Slice", 10, X4, ints(1, -3), ints(100, -1), ints(1, 3)),
    case("Slice", 13, X4, ints(-1, 5), ints(-100, 0), ints(2, 3), ints(-1, -2)),
    case("Slice", 13, X4, ints(0, 1), ints(1, 4)),
    case("Pad", 7, X4, pads=[0, 0, 1, 2, 0, 0, 3, 0], value=1.5),
    case("Pad", 11, X4, ints(0, 1, 1, 2, 0, 0, 3, 0), scalar(1.5, np.float32)),
    case("Pad", 13, X4, ints(0, 0, -1, 2, 0, 0, 3, -2)),
    case("Pad", 18, X4, ints(1, 2), None, ints(-1), mode="edge"),
    case("Pad", 13, X4, ints(0, 0, 2, 3, 0, 0, 1, 4), mode="reflect"),
    case("Pad", 19, X4, ints(0, 0, 2, 3, 0, 0, 1, 4), mode="wrap"),
    case("DepthToSpace", 11, floats(2, 8, 3, 2), blocksize=2),
    case("DepthToSpace", 13, floats(2, 8, 3, 2), blocksize=2, mode="CRD"),
    case("SpaceToDepth", 13, floats(2, 2, 4, 6), blocksize=2),
    case("Trilu", 14, X2, scalar(1)),
    case("Trilu", 14, X2, upper=0),
    # Reductions.
    *[
        case(f"Reduce{kind}", 11, positive(2, 3, 4), axes=[0, -1], keepdims=0)
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    ],
    *[
        case(f"Reduce{kind}", 18, positive(2, 3, 4), ints(1))
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    ],
    case("ReduceMean", 13, X3),
    case("ReduceSum", 13, X3, ints(-1)),
    case("ReduceSum", 13, X3, noop_with_empty_axes=1),
    case("ArgMax", 13, X2, axis=1, to=INT64),
    case("ArgMax", 13, np.array([[1, 2, 2, 0]], np.float32), axis=1, keepdims=0, select_last_index=1, to=INT64),
    case("ArgMin", 13, X2, to=INT64),
    case("TopK", 10, X2, ints(2), outputs=2, axis=0),
    case("TopK", 11, X2, ints(2), outputs=2, largest=0),
    case("CumSum", 14, X2, scalar(1)),
    case("CumSum", 14, X2, scalar(0), exclusive=1, reverse=1),
    # Indices.
    case("Gather", 13, X3, ints([0, -1], [1, 2]), axis=1),
    case("Gather", 13, X3, scalar(-1), axis=2),
    case("Gather", 13, X3, scalar(0)),
    case("GatherElements", 13, X2, ints([0, -1], [1, 2], [3, 3]), axis=1),
    case("GatherND", 12, X3, ints([0, 1], [1, -1])),
    case("GatherND", 12, X3, ints([1], [-1]), batch_dims=1),
    *[case("ScatterND", 18, X3, ints([0, 1], [1, -1]), floats(2, 8), reduction=how) for how in ("none", "add", "mul", "max")],
    case("ScatterElements", 18, X2, ints([1, 0, 2, 0]), floats(1, 4), axis=0, reduction="add"),
    case("ScatterElements", 11, X2, ints([1, 0, 2, 0]), floats(1, 4), axis=0),
    case("Scatter", 9, X2, ints([1, 0, 2, 0]), floats(1, 4)),
    case("NonZero", 13, TRUTHS, to=INT64),
    case("OneHot", 11, ints(0, 2, -1), scalar(3), np.array([-1, 4], np.float32)),
    case("OneHot", 11, ints([0, 2], [1, 1]), scalar(3), np.array([0, 1], np.float32), axis=1),
    *[
        case("GridSample", 16, X4, floats(2, 3, 3, 2), mode=mode, align_corners=corners, padding_mode=padding)
        for mode, corners, padding in [("bilinear", 0, "zeros"), ("nearest", 1, "border"), ("bicubic", 1, "reflection")]
    ],
    case("GridSample", 20, X4, floats(2, 3, 3, 2), mode="linear"),
    # Resize.
    case("Upsample", 7, X4, mode="nearest", scales=[1.0, 1.0, 2.0, 3.0]),
    case("Upsample", 9, X4, np.array([1, 1, 2, 2], np.float32), mode="nearest"),
    case("Upsample", 9, X4, np.array([1, 1, 2, 2], np.float32), mode="linear"),
    case("Resize", 10, X4, np.array([1, 1, 2, 1.6], np.float32), mode="nearest"),
    case("Resize", 10, X4, np.array([1, 1, 2, 0.6], np.float32), mode="linear"),
    *[
        case("Resize", 11, X4, EMPTY, np.array([1, 1, *scales], np.float32), mode="nearest",
             coordinate_transformation_mode=transformation, nearest_mode=rounding)
        for scales in ((2, 2), (1.7, 0.55))
        for transformation in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ],
    *[
        case(
            "Resize", 13, X4, None, None, ints(2, 4, *sizes),
            mode=mode, coordinate_transformation_mode=transformation, cubic_coeff_a=-0.75,
        )
        for sizes in ((14, 12), (5, 9), (1, 3))
        for mode in ("linear", "cubic")
        for transformation in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    ],
    case("Resize", 18, X4, None, None, ints(5, 9), mode="linear", axes=[2, 3]),
    case("Resize", 18, X4, None, np.array([0.6, 0.5], np.float32), mode="linear", axes=[2, 3], antialias=1),
    case("Resize", 18, X4, None, np.array([0.6, 0.5], np.float32), mode="cubic", axes=[2, 3], antialias=1, cubic_coeff_a=-0.5),
    case("Resize", 18, X4, None, None, ints(9, 20), mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger"),
    case(
        "Resize", 19, X4, None, np.array([1, 1, 1.7, 0.55], np.float32),
        mode="linear", coordinate_transformation_mode="half_pixel_symmetric",
    ),
    case("Resize", 13, X4, None, np.array([1, 1, 1.7, 0.6], np.float32), mode="cubic", exclude_outside=1),
    case("Resize", 13, X3, None, np.array([1, 1, 2], np.float32), mode="linear"),
    case("Resize", 13, X5, None, np.array([1, 1, 2, 2, 2], np.float32), mode="linear"),
    # Recurrent layers.
    case("LSTM", 14, SEQUENCE, *LSTM_WEIGHTS, outputs=3, hidden_size=5),
    case(
        "LSTM", 7, SEQUENCE, *BOTH_LSTM, None, floats(2, 2, 5), floats(2, 2, 5, seed=3),
        outputs=3, hidden_size=5, direction="bidirectional",
    ),
    case("LSTM", 14, SEQUENCE, *LSTM_WEIGHTS, outputs=1, hidden_size=5, direction="reverse"),
    case("LSTM", 14, SEQUENCE, *LSTM_WEIGHTS[:2], outputs=1, hidden_size=5, activations=["Sigmoid", "Tanh", "Tanh"]),
    *[case("GRU", 14, SEQUENCE, *GRU_WEIGHTS, outputs=2, hidden_size=5, linear_before_reset=before) for before in (0, 1)],
    case(
        "GRU", 7, SEQUENCE, *BOTH_GRU, None, floats(2, 2, 5),
        outputs=2, hidden_size=5, direction="bidirectional", linear_before_reset=1,
    ),
    case("RNN", 14, SEQUENCE, *BOTH_RNN, outputs=2, hidden_size=5, direction="bidirectional", activations=["Relu", "Tanh"]),
    # Attention.
    case("Attention", 23, floats(2, 3, 5, 4), floats(2, 3, 6, 4, seed=1), floats(2, 3, 6, 4, seed=2)),
    case("Attention", 23, floats(2, 4, 5, 4), floats(2, 2, 5, 4, seed=1), floats(2, 2, 5, 4, seed=2), is_causal=1, scale=0.3),
    case(
        "Attention", 23, floats(2, 5, 12), floats(2, 5, 6), floats(2, 5, 6), floats(5, 5),
        q_num_heads=4, kv_num_heads=2, softcap=2.0,
    ),
    case("Attention", 23, floats(2, 3, 5, 4), floats(2, 3, 5, 4), floats(2, 3, 5, 4), np.tri(5, 5, 1).astype(bool)),
    case("RotaryEmbedding", 23, floats(2, 3, 4, 6), *TABLES, ints([0, 1, 2, 3], [3, 5, 7, 9])),
    case("RotaryEmbedding", 23, floats(2, 4, 18), *TABLES, ints([0, 1, 2, 3], [3, 5, 7, 9]), num_heads=3, interleaved=1),
]  # fmt: skip


def build(one: Case) -> bytes:
    names = [f"x{number}" if array is not None else "" for number, array in enumerate(one.arrays)]
    outputs = [f"y{number}" for number in range(one.outputs)]
    initialisers = {name: array for name, array in zip(names[1:], one.arrays[1:], strict=True) if array is not None}
    attributes = {**one.attributes, **({"to": one.output_type} if one.operator == "Cast" else {})}
    node = helper.make_node(one.operator, names, outputs, **attributes)
    first = one.arrays[0]
    assert first is not None
    graph = graph_of([node], {"x0": first}, outputs, initialisers, one.output_type)
    if one.operator == "TopK" and one.outputs == 2:
        graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    content: bytes = model_of(graph, one.opset).SerializeToString()
    return content


def results(network: GraphNetwork, x: Tensor) -> tuple[Tensor, ...]:
    found = network(x)
    return found if isinstance(found, tuple) else (found,)


def network_of(content: bytes) -> GraphNetwork:
    model = read(content)
    return GraphNetwork(model.program, model.state_dict)


@pytest.mark.parametrize("one", CASES, ids=str)
def test_an_operator_computes_what_onnxruntime_computes(one: Case) -> None:
    content = build(one)
    x = torch.from_numpy(one.arrays[0])
    expected = run(content, [x])
    found = results(network_of(content), x)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b.to(a.dtype), atol=1e-4, rtol=1e-4, equal_nan=True)
        assert a.dtype == b.dtype


NOT_UNDER_VMAP = ("NonZero", "ConstantOfShape", "Range")


@pytest.mark.parametrize("one", [one for one in CASES if one.operator not in NOT_UNDER_VMAP], ids=str)
def test_an_operator_runs_under_vmap(one: Case) -> None:
    network = network_of(build(one))
    x = torch.from_numpy(one.arrays[0])
    two = torch.stack([x, x.flip(-1)])
    batched = torch.vmap(lambda x: results(network, x), out_dims=0)(two)
    for number in range(2):
        for a, b in zip(batched, results(network, two[number]), strict=True):
            torch.testing.assert_close(a[number], b, atol=1e-5, rtol=1e-4, equal_nan=True)


@pytest.mark.parametrize("one", [one for one in CASES if one.differentiable], ids=str)
def test_an_operator_has_a_gradient(one: Case) -> None:
    network = network_of(build(one))
    x = torch.from_numpy(one.arrays[0]).clone().requires_grad_()
    torch.stack([y.square().sum() for y in results(network, x) if y.is_floating_point()]).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
