"""Reading of ONNX files: what becomes of tensors, constants and names, and what is refused."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from nern.errors import BadProgram
from nern.graph.interpreter import GraphNetwork
from nern.graph.onnx_model import OnnxModel, read, sniff
from nern.graph.onnx_nodes import NodeReader
from nern.graph.program import Program
from tests.support.onnx_files import graph_of, model_of, run

X = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
WEIGHT = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
SQUARE = np.random.default_rng(2).standard_normal((3, 3)).astype(np.float32)


def model(*nodes: NodeProto, opset: int = 17, inputs: Any = None, **fields: Any) -> ModelProto:
    """A model whose graph has these nodes, the input x, the initialiser w (3 x 4) and the output y."""
    return model_of(graph_of(nodes, inputs or {"x": X}, initialisers={"w": WEIGHT}), opset, **fields)


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str] = ("y",), **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs, outputs, name=f"the_{operator.lower()}", **attributes)


def computed(read_model: OnnxModel, *inputs: np.ndarray[Any, Any], weights: dict[str, Tensor] | None = None) -> Tensor:
    network = GraphNetwork(read_model.program, read_model.state_dict)
    result: Tensor = network(*(torch.from_numpy(array) for array in inputs), weights=weights or {})
    return result


def read_model(proto: ModelProto) -> OnnxModel:
    return read(proto.SerializeToString())


PRODUCT = node("MatMul", ["x", "w"])


def test_initialisers_are_the_state_dict_under_their_names() -> None:
    found = read_model(model(PRODUCT))
    assert list(found.state_dict) == ["w"]
    torch.testing.assert_close(found.state_dict["w"], torch.from_numpy(WEIGHT))
    assert found.program.tensors == {"w": "w"}
    assert [(port.name, port.dtype, port.shape) for port in found.program.inputs] == [("x", "F32", (2, 3))]
    assert found.program.nodes[0].place == "the_matmul"
    other = torch.ones(3, 4)
    torch.testing.assert_close(computed(found, X, weights={"w": other}), torch.from_numpy(X) @ other)


def test_an_initialiser_that_is_also_an_input_is_no_input() -> None:
    proto = model(PRODUCT)
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (3, 4)))
    assert [port.name for port in read_model(proto).program.inputs] == ["x"]


def test_extents_without_a_number_are_free() -> None:
    proto = model(PRODUCT)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    assert read_model(proto).program.inputs[0].shape == (None, 3)


def test_programs_survive_json() -> None:
    shape = node("Reshape", ["p", "shape"])
    constant = helper.make_node("Constant", [], ["shape"], value_ints=[-1, 2])
    found = read_model(model(constant, node("MatMul", ["x", "w"], ["p"]), shape))
    again = Program.from_json(found.program.to_json())
    assert again.to_json() == found.program.to_json()
    network = GraphNetwork(again, found.state_dict)
    torch.testing.assert_close(network(torch.from_numpy(X)), computed(found, X))


STORED: dict[str, Callable[[TensorProto], None]] = {
    "raw": lambda proto: proto.CopyFrom(numpy_helper.from_array(SQUARE, "w")),
    "float": lambda proto: proto.CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, (3, 3), SQUARE.flatten())),
    "double": lambda proto: proto.CopyFrom(helper.make_tensor("w", TensorProto.DOUBLE, (3, 3), SQUARE.flatten())),
    "float16": lambda proto: proto.CopyFrom(helper.make_tensor("w", TensorProto.FLOAT16, (3, 3), SQUARE.flatten())),
    "raw float16": lambda proto: proto.CopyFrom(numpy_helper.from_array(SQUARE.astype(np.float16), "w")),
    "bfloat16": lambda proto: proto.CopyFrom(helper.make_tensor("w", TensorProto.BFLOAT16, (3, 3), SQUARE.flatten())),
}


@pytest.mark.parametrize("stored", STORED)
def test_a_tensor_is_read_however_it_is_stored(stored: str) -> None:
    proto = model(node("MatMul", ["x", "w"]))
    STORED[stored](proto.graph.initializer[0])
    found = read_model(proto)
    torch.testing.assert_close(found.state_dict["w"].float(), torch.from_numpy(SQUARE), atol=0.02, rtol=0.01)
    assert bool(found.notes) == (found.state_dict["w"].dtype != torch.float32)
    assert computed(found, X).dtype == torch.float32


@pytest.mark.parametrize("code", [TensorProto.INT64, TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL])
def test_integers_keep_their_dtype(code: int) -> None:
    proto = model(PRODUCT)
    proto.graph.initializer.append(helper.make_tensor("counts", code, (3,), [1, 0, 1]))
    found = read_model(proto)
    assert found.state_dict["counts"].tolist() == [1, 0, 1]
    assert tensor_code(found.state_dict["counts"]) == code


def tensor_code(tensor: Tensor) -> int:
    code: int = helper.np_dtype_to_tensor_dtype(tensor.numpy().dtype)
    return code


def test_a_network_in_float16_runs_in_float32() -> None:
    halves = {"x": X.astype(np.float16)}
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Cast", ["p"], to=TensorProto.FLOAT16)]
    proto = model_of(
        graph_of(nodes, halves, initialisers={"w": WEIGHT.astype(np.float16)}, output_type=TensorProto.FLOAT16), 17
    )
    found = read_model(proto)
    assert found.state_dict["w"].dtype == torch.float16
    assert "float16" in found.notes[0]
    assert {port.dtype for port in (*found.program.inputs, *found.program.outputs)} == {"F32"}
    y = computed(found, X)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, run(proto.SerializeToString(), [torch.from_numpy(X).half()])[0].float(), atol=0.01, rtol=0.01)


def test_a_weight_in_a_constant_node_is_a_tensor_of_the_state_dict() -> None:
    constant = helper.make_node("Constant", [], ["hidden"], value=numpy_helper.from_array(SQUARE))
    bias = helper.make_node("Constant", [], ["bias"], value=numpy_helper.from_array(SQUARE[0]))
    proto = model(constant, bias, node("Gemm", ["x", "hidden", "bias"], ["p"]), node("MatMul", ["p", "w"]))
    found = read_model(proto)
    assert list(found.state_dict) == ["w", "hidden"]
    assert list(found.program.constants) == ["bias"]
    assert "hidden" in found.notes[0]
    torch.testing.assert_close(computed(found, X), run(proto.SerializeToString(), [torch.from_numpy(X)])[0])


def test_shapes_are_computed_when_the_file_is_read() -> None:
    constant = helper.make_node("Constant", [], ["half"], value_ints=[2])
    nodes = [
        node("Shape", ["w"], ["s"]),
        node("Gather", ["s", "zero"], ["rows"], axis=0),
        node("Concat", ["rows", "half"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"]),
    ]
    proto = model(constant, *nodes)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "zero"))
    found = read_model(proto)
    assert [(one.operator, one.arguments[1:]) for one in found.program.nodes] == [("onnx.Reshape", ([3, 2],))]
    assert list(found.state_dict) == ["w", "zero"]
    assert not found.program.tensors


def test_the_shape_of_an_input_stays_free() -> None:
    nodes = [node("Shape", ["x"], ["s"]), node("MatMul", ["x", "w"], ["p"]), node("Mul", ["x", "x"], ["q"])]
    nodes += [node("Expand", ["one", "s"], ["ones"]), node("MatMul", ["ones", "w"])]
    proto = model(*nodes)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "one"))
    found = read_model(proto)
    x = np.ones((5, 3), np.float32)
    torch.testing.assert_close(computed(found, x), torch.from_numpy(x @ WEIGHT))
    assert [one.operator for one in found.program.nodes] == ["onnx.Shape", "onnx.Expand", "onnx.MatMul"]


def test_second_names_are_seen_through() -> None:
    found = read_model(model(node("Identity", ["w"], ["v"]), node("Dropout", ["x"], ["d"]), node("MatMul", ["d", "v"])))
    assert [one.operator for one in found.program.nodes] == ["onnx.MatMul"]
    assert found.program.tensors == {"w": "w"}


@pytest.mark.parametrize("source", ["x", "w"])
def test_an_output_may_be_an_input_or_a_tensor(source: str) -> None:
    found = read_model(model(node("Identity", [source])))
    torch.testing.assert_close(computed(found, X), torch.from_numpy(X if source == "x" else WEIGHT))


def branch(value: float) -> GraphProto:
    constant = helper.make_node("Constant", [], [f"c{value}"], value_floats=[value])
    nodes = [constant, helper.make_node("Mul", ["x", f"c{value}"], [f"m{value}"])]
    return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info(f"m{value}", TensorProto.FLOAT, None)])


@pytest.mark.parametrize("condition", [True, False])
def test_the_branch_of_a_known_condition_is_taken(condition: bool) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(condition)))
    proto = model(constant, node("If", ["c"], then_branch=branch(2), else_branch=branch(3)))
    torch.testing.assert_close(computed(read_model(proto), X), torch.from_numpy(X) * (2 if condition else 3))


def with_functions(depth: int) -> ModelProto:
    """A model that calls f1, which calls f2 twice, and so on. The last multiplies by its attribute."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    functions = []
    for number in range(1, depth):
        calls = [
            helper.make_node(f"f{number + 1}", ["a"], ["b"], domain="mine", factor=2.0),
            helper.make_node(f"f{number + 1}", ["b"], ["c"], domain="mine", factor=0.5),
        ]
        functions.append(helper.make_function("mine", f"f{number}", ["a"], ["c"], calls, imports))
    constant = helper.make_node("Constant", [], ["k"])
    constant.attribute.append(AttributeProto(name="value_float", type=AttributeProto.FLOAT, ref_attr_name="factor"))
    last = [constant, helper.make_node("Mul", ["a", "k"], ["c"])]
    functions.append(helper.make_function("mine", f"f{depth}", ["a"], ["c"], last, imports, ["factor"]))
    graph = graph_of([helper.make_node("f1", ["x"], ["y"], domain="mine", factor=3.0)], {"x": X})
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)


@pytest.mark.parametrize("depth", [1, 3])
def test_functions_are_read_in_place_of_their_calls(depth: int) -> None:
    proto = with_functions(depth)
    torch.testing.assert_close(computed(read_model(proto), X), run(proto.SerializeToString(), [torch.from_numpy(X)])[0])


def test_functions_that_call_each_other_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NodeReader, "max_nodes", 1000)
    with pytest.raises(BadProgram, match="has more than 1000 nodes"):
        read_model(with_functions(25))
    proto = with_functions(1)
    del proto.functions[0].node[:]
    proto.functions[0].node.append(helper.make_node("f1", ["a"], ["c"], domain="mine"))
    with pytest.raises(BadProgram, match="call each other too deep"):
        read_model(proto)


def external(location: str = "weights.bin", **place: int) -> ModelProto:
    proto = model(PRODUCT)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **place}.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto


def test_tensors_in_another_file_are_read_if_the_upload_has_the_file() -> None:
    content = external(offset=4, length=48).SerializeToString()
    found = read(content, {"weights.bin": b"1234" + WEIGHT.tobytes()})
    torch.testing.assert_close(found.state_dict["w"], torch.from_numpy(WEIGHT))
    with pytest.raises(BadProgram, match="external_data=False"):
        read(content)
    with pytest.raises(BadProgram, match="outside the file"):
        read(content, {"weights.bin": WEIGHT.tobytes()})
    with pytest.raises(BadProgram, match="no proper place"):
        read(external(offset="x").SerializeToString(), {"weights.bin": b""})  # type: ignore[arg-type]


REFUSED: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "an unknown operator": (
        lambda: model(node("StringNormalizer", ["x"])),
        r"the operator onnx.StringNormalizer at 'the_stringnormalizer' is not supported",
    ),
    "another domain": (
        lambda: model(node("FusedConv", ["x"], domain="com.microsoft")),
        r"com.microsoft.FusedConv at 'the_fusedconv' is not one of ONNX's own",
    ),
    "a loop": (
        lambda: model(node("Loop", ["", "", "x"], body=branch(2))),
        "Loop at 'the_loop' is control flow",
    ),
    "an open condition": (
        lambda: model(
            node("ReduceSum", ["x"], ["s"], keepdims=0),
            node("Cast", ["s"], ["c"], to=TensorProto.BOOL),
            node("If", ["c"], then_branch=branch(2), else_branch=branch(3)),
        ),
        "If at 'the_if' decides at run time",
    ),
    "quantised": (lambda: model(node("DequantizeLinear", ["x", "w"])), "is quantised; export the network before"),
    "sequences": (lambda: model(node("SequenceConstruct", ["x"])), "SequenceConstruct"),
    "an old opset": (lambda: model(PRODUCT, opset=6), "has opset 6; opsets 7 to 28"),
    "a new opset": (lambda: model(PRODUCT, opset=99), "has opset 99"),
    "an unknown attribute": (lambda: model(node("Relu", ["x"], slope=1.0)), "has the attribute slope = 1.0"),
    "an unknown choice": (
        lambda: model(node("Pad", ["x", "w"], mode="mirror")),
        "the operator Pad at 'the_pad' has the attribute mode = 'mirror'",
    ),
    "a missing attribute": (lambda: model(node("Concat", ["x", "x"])), "missing a required argument: 'axis'"),
    "a batch norm in training": (
        lambda: model(node("BatchNormalization", ["x", "w", "w", "w", "w"], training_mode=1), opset=15),
        "is in training mode; export the network after model.eval",
    ),
    "an input of another graph": (lambda: model(node("Relu", ["z"])), "takes 'z', which no earlier node gives"),
    "a missing output": (lambda: model(node("Relu", ["x"], ["z"])), "no node gives the output 'y'"),
    "a value given twice": (
        lambda: model(node("Relu", ["x"]), node("Tanh", ["x"])),
        "two nodes give the value 'y'",
    ),
    "a second result": (
        lambda: model(node("MaxPool", ["x"], ["p", "i"], kernel_shape=[1]), node("Add", ["p", "i"])),
        "gives a second result, 'i'",
    ),
    "lengths of sequences": (
        lambda: model(node("GRU", ["x", "w", "w", "w", "x"], ["y", "h"], hidden_size=1)),
        "takes the lengths of sequences",
    ),
    "peepholes": (
        lambda: model(node("LSTM", ["x", "w", "w", "", "", "", "", "w"], hidden_size=1)),
        "too many positional arguments",
    ),
    "no graph": (ModelProto, "has no graph"),
    "a node without outputs": (lambda: model(node("Relu", ["x"], [])), "has no outputs"),
    "an impossible shape": (
        lambda: model(node("Constant", [], ["c"], value_ints=[7]), node("Gather", ["c", "c"])),
        "Gather at 'the_gather' has inputs or attributes that it can't take",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_named(what: str) -> None:
    make, message = REFUSED[what]
    with pytest.raises(BadProgram, match=message):
        read_model(make())


def damaged(change: Callable[[TensorProto], object]) -> bytes:
    proto = model(PRODUCT)
    change(proto.graph.initializer[0])
    return proto.SerializeToString()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor.dims.append(2), "has 48 bytes, but its shape"),
        (lambda tensor: tensor.dims.extend([-1, -1]), "negative number"),
        (lambda tensor: tensor.dims.extend([0, 2**62]), "has 48 bytes"),
        (lambda tensor: setattr(tensor, "data_type", TensorProto.STRING), "the tensor 'w' has the type STRING"),
        (lambda tensor: setattr(tensor, "data_type", TensorProto.INT4), "has the type INT4"),
        (lambda tensor: setattr(tensor, "data_type", 99), "has the type 99"),
        (lambda tensor: setattr(tensor, "name", ""), "without a name"),
        (lambda tensor: tensor.segment.CopyFrom(TensorProto.Segment(begin=1)), "segments"),
        (lambda tensor: tensor.CopyFrom(helper.make_tensor("w", TensorProto.INT8, (1,), [1])), None),
    ],
)
def test_damaged_tensors_are_refused(change: Callable[[TensorProto], object], message: str | None) -> None:
    content = damaged(change)
    if message is None:
        assert read(content).state_dict["w"].tolist() == [1]
    else:
        with pytest.raises(BadProgram, match=message):
            read(content)


def test_a_number_that_its_type_cannot_hold_is_refused() -> None:
    proto = model(PRODUCT)
    proto.graph.initializer[0].CopyFrom(TensorProto(name="w", data_type=TensorProto.INT8, dims=[1], int32_data=[1000]))
    with pytest.raises(BadProgram, match="can't hold"):
        read_model(proto)


def test_sparse_initialisers_are_refused() -> None:
    proto = model(PRODUCT)
    proto.graph.sparse_initializer.add()
    with pytest.raises(BadProgram, match="sparse"):
        read_model(proto)


def test_inputs_that_are_no_tensors_are_refused() -> None:
    proto = model(PRODUCT)
    proto.graph.input.add(name="list").type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(BadProgram, match="'list' is an input or output that is not a tensor"):
        read_model(proto)


def test_large_shapes_are_not_computed() -> None:
    constant = helper.make_node("Constant", [], ["shape"], value_ints=[2**40, 2**20])
    found = read_model(model(constant, node("ConstantOfShape", ["shape"], ["z"]), node("Add", ["x", "z"])))
    assert [one.operator for one in found.program.nodes] == ["onnx.ConstantOfShape", "onnx.Add"]


def test_the_smallest_integer_is_divided_by_minus_one() -> None:
    constants = [helper.make_node("Constant", [], [name], value_ints=[value]) for name, value in (("a", -(2**63)), ("b", -1))]
    nodes = [node("Div", ["a", "b"], ["q"]), node("Cast", ["q"], ["f"], to=TensorProto.FLOAT), node("Mul", ["x", "f"])]
    assert computed(read_model(model(*constants, *nodes)), X).shape == (2, 3)


def test_damaged_files_are_refused_and_nothing_else_happens() -> None:
    content = with_functions(2).SerializeToString() + model(PRODUCT).SerializeToString()
    rng = random.Random(0)  # noqa: S311
    for _ in range(500):
        changed = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        try:
            read(bytes(changed[: rng.choice([len(changed), rng.randrange(len(changed))])]))
        except BadProgram:
            continue


def test_onnx_files_are_told_from_others() -> None:
    assert sniff(model(PRODUCT).SerializeToString())
    assert not sniff(b"PK\x03\x04")
    assert not sniff(b"\x80\x02ck")
    assert not sniff(b"")
