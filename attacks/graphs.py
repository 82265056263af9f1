"""ONNX files and programs of torch.export: tensors elsewhere, operators that run code, functions that call each other."""

import json
import zipfile
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import torch
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

import nern
from attacks.attack import Attack, main
from attacks.writing import pickled, text, zipped

MODEL = "archive/models/model.json"
IMPORTS = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]


@cache
def exported() -> dict[str, bytes]:
    """The members of a small archive of torch.export. What a program does not need is left out of its graph."""
    file = BytesIO()
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU(), torch.nn.Flatten())
    nern.export(network.eval(), torch.zeros(1, 1, 4, 4), file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    content = json.loads(members[MODEL])
    for node in content["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
    return {**members, MODEL: json.dumps(content, separators=(",", ":")).encode()}


def program(change: Callable[[Any], object], **members: bytes) -> bytes:
    """An archive of torch.export whose graph a function has changed, with further members."""
    content = json.loads(exported()[MODEL])
    change(content)
    return zipped({**exported(), MODEL: json.dumps(content).encode(), **members})


def first(content: Any) -> Any:
    """The first node of a graph."""
    return content["graph_module"]["graph"]["nodes"][0]


def called(target: str) -> bytes:
    """A program whose first node calls something else."""
    return program(lambda content: first(content).__setitem__("target", target))


def sized(expression: str) -> bytes:
    """A program whose input has an expression as its size."""
    return program(
        lambda content: content["graph_module"]["graph"]["tensor_values"]["input"]["sizes"].__setitem__(
            0, {"as_expr": {"expr_str": expression, "hint": {"as_int": 2}}}
        )
    )


def onnx_file(nodes: list[NodeProto], functions: list[FunctionProto] | None = None, **place: str) -> bytes:
    """An ONNX file whose nodes make `y` of `x` and the weight `w`, which is elsewhere if there is a place."""
    weight = numpy_helper.from_array(np.zeros((2, 1, 3, 3), np.float32), "w")
    if place:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in place.items():
            weight.external_data.add(key=key, value=value)
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "graph", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, ir_version=10, opset_imports=IMPORTS, functions=functions or [])
    content: bytes = model.SerializeToString()
    return content


CONV = [helper.make_node("Conv", ["x", "w"], ["y"])]


def doubling(depth: int) -> bytes:
    """Functions each of which calls the next one twice."""
    functions = [
        helper.make_function(
            "mine", f"f{number}", ["a"], ["c"],
            [helper.make_node(f"f{number + 1}", [value], [result], domain="mine") for value, result in ("ab", "bc")], IMPORTS,
        )
        for number in range(depth)
    ]  # fmt: skip
    last = helper.make_function("mine", f"f{depth}", ["a"], ["c"], [helper.make_node("Relu", ["a"], ["c"])], IMPORTS)
    return onnx_file([helper.make_node("f0", ["x"], ["y"], domain="mine")], [*functions, last])


def nested(depth: int) -> bytes:
    """Branches inside of branches."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "b", [], [helper.make_empty_tensor_value_info("z")]
    )
    for _ in range(depth):
        node = helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch)
        branch = helper.make_graph([node], "b", [], [helper.make_empty_tensor_value_info("z")])
    return onnx_file([helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)])


ATTACKS = [
    Attack("ONNX: the tensors of another file", lambda _: onnx_file(CONV, location="/etc/passwd", length="72")),
    Attack("ONNX: the tensors of a file above", lambda _: onnx_file(CONV, location="../../../../etc/passwd")),
    Attack("ONNX: functions that are called two to the thirtieth times", lambda _: doubling(30)),
    Attack("ONNX: a function that calls itself", lambda _: onnx_file(
        [helper.make_node("f", ["x"], ["y"], domain="mine")],
        [helper.make_function("mine", "f", ["a"], ["b"], [helper.make_node("f", ["a"], ["b"], domain="mine")], IMPORTS)])),
    Attack("ONNX: branches ten deep, with two to the tenth ends", lambda _: nested(10)),
    Attack("ONNX: a shape of exabytes", lambda _: onnx_file(
        [helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(np.array([2**40, 2**20]), "s")),
         helper.make_node("ConstantOfShape", ["s"], ["y"])])),
    Attack("ONNX: an operator of a library", lambda _: onnx_file(
        [helper.make_node("PythonOp", ["x"], ["y"], domain="ai.onnx.contrib", name="os.system")])),
    Attack("torch.export: a call of os.system", lambda _: called("os.system")),
    Attack("torch.export: a call of an operator that loads a library", lambda _: called("torch.ops.load_library")),
    Attack("torch.export: a call of an attribute of torch", lambda _: called("torch.hub.load")),
    Attack("torch.export: an operator that reads a file", lambda _: called("torch.ops.aten.from_file.default")),
    Attack("torch.export: code in a size", lambda marker: sized(f"__import__('os').system('touch {marker}')")),
    Attack("torch.export: a power of powers in a size", lambda _: sized("9**9**9**9")),
    Attack("torch.export: a size nested ten thousand deep", lambda _: sized("(" * 10_000 + "s0" + ")" * 10_000)),
    Attack("torch.export: a pickle as sample inputs", lambda marker: program(
        lambda content: None,
        **{"archive/data/sample_inputs/model.pt": pickled(b"cposix\nsystem\n(" + text(f"touch {marker}") + b"tR")})),
    Attack("torch.export: a weight whose file is outside of the archive", lambda _: program(
        lambda content: None,
        **{"archive/data/weights/model_weights_config.json": exported()[
            "archive/data/weights/model_weights_config.json"].replace(b"weight_0", b"../../../etc/passwd")})),
    Attack("torch.export: a program nested a hundred thousand deep", lambda _: zipped(
        {**exported(), MODEL: b"[" * 100_000 + b"]" * 100_000})),
]  # fmt: skip

if __name__ == "__main__":
    main(ATTACKS)
