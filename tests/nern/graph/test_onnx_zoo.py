"""Networks of many kinds as ONNX files: read, computed as onnxruntime and torch compute them, and written again."""

import contextlib
import functools
import io
import logging
import warnings
from dataclasses import dataclass
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

from nern import tensorfile
from nern.errors import BadProgram
from nern.graph.exported import read as read_exported
from nern.graph.interpreter import GraphNetwork
from nern.graph.onnx_model import OnnxModel, read
from nern.graph.onnx_writer import OnnxLayout, layout
from nern.graph.program import Ref
from nern.graph.to_onnx import make_skeleton
from nern.layers import StateDict
from nern.tensorfile import Entry
from tests.support.onnx_files import run
from tests.support.zoo import ZOO

# The exporter that torch had until 2.8 fails for these opsets.
OLDER_FAILS = {("vision", 11), ("vision", 13), ("encoder", 11), ("autoencoder", 11)}


@dataclass(frozen=True)
class Export:
    """A way to export a network. `opset` None is the exporter's own choice."""

    dynamo: bool
    opset: int | None
    any_batch: bool

    def __str__(self) -> str:
        exporter = "dynamo" if self.dynamo else "torchscript"
        return f"{exporter}-{self.opset}-{'any batch' if self.any_batch else 'batch of 1'}"


OLDER = [Export(False, 11, False), Export(False, 17, True)]
# The exporter of today takes seconds for each network, so only some are exported with it.
NEWER = [
    *((name, Export(True, 18, True)) for name in ("residual", "unet", "recurrent", "windows", "volumes", "two-inputs")),
    *((name, Export(True, None, False)) for name in ("encoder", "wave")),
]
CASES = [
    *((name, how) for name in ZOO for how in OLDER if (name, how.opset) not in OLDER_FAILS),
    *NEWER,
]


@functools.lru_cache(maxsize=4)
def exported(name: str, how: Export) -> bytes:
    """A network of the zoo as an ONNX file."""
    network, inputs = ZOO[name].network(), ZOO[name].inputs(2 if how.any_batch else 1)
    names = [f"input{number}" for number in range(len(inputs))]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if how.dynamo:
            shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs) if how.any_batch else None
            program = torch.onnx.export(
                network, inputs, dynamo=True, verbose=False, opset_version=how.opset, input_names=names, dynamic_shapes=shapes
            )
            assert program is not None
            content: bytes = program.model_proto.SerializeToString()
            return content
        file = io.BytesIO()
        axes = {one: {0: "batch"} for one in names} if how.any_batch else None
        torch.onnx.export(
            network,
            inputs,
            file,  # type: ignore[arg-type] # as the documentation says
            dynamo=False,
            opset_version=how.opset,
            input_names=names,
            dynamic_axes=axes,
        )
        return file.getvalue()


def outputs_of(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)


@pytest.mark.parametrize(("name", "how"), CASES, ids=str)
def test_a_network_computes_what_onnxruntime_and_torch_compute(name: str, how: Export) -> None:
    content = exported(name, how)
    inputs = ZOO[name].inputs(3 if how.any_batch else 1, seed=1)
    model = read(content)
    found = outputs_of(GraphNetwork(model.program, model.state_dict)(*inputs))
    for others in (run(content, inputs), outputs_of(ZOO[name].network()(*inputs))):
        assert len(found) == len(others)
        for a, b in zip(found, others, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ZOO)
def test_an_export_with_a_batch_of_one_runs_under_vmap(name: str) -> None:
    model = read(exported(name, Export(False, 17, False)))
    network = GraphNetwork(model.program, model.state_dict)
    inputs = ZOO[name].inputs(3, seed=1)
    together = outputs_of(torch.vmap(lambda *x: network(*(one.unsqueeze(0) for one in x)))(*inputs))
    for number in range(3):
        alone = outputs_of(network(*(one[number : number + 1] for one in inputs)))
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[number], b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ZOO)
def test_every_weight_has_a_gradient(name: str) -> None:
    model = read(exported(name, Export(False, 17, False)))
    network = GraphNetwork(model.program, model.state_dict)
    norms = [node for node in model.program.nodes if node.operator == "onnx.BatchNormalization"]
    statistics = {argument.name for node in norms for argument in node.arguments[3:] if isinstance(argument, Ref)}
    taken = {name: model.state_dict[name] for name in model.program.tensors.values() if name not in statistics}
    weights = {name: tensor.clone().requires_grad_() for name, tensor in taken.items() if tensor.is_floating_point()}
    result = network(*ZOO[name].inputs(seed=1), weights=weights)
    torch.stack([output.square().sum() for output in outputs_of(result)]).sum().backward()
    for weight in weights.values():
        assert weight.grad is not None
        assert weight.grad.isfinite().all()


def layout_of(skeleton: bytes, state_dict: StateDict) -> OnnxLayout:
    return layout(skeleton, [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in state_dict.items()])


def written(skeleton: bytes, state_dict: StateDict, start: int = 0, stop: int | None = None) -> bytes:
    """Bytes start..stop of the file."""
    found = layout_of(skeleton, state_dict)

    def data(entry: Entry, first: int, last: int) -> list[bytes]:
        return [tensorfile.to_bytes(state_dict[entry.name])[first:last]]

    return b"".join(found.read(start, found.nbytes if stop is None else stop, data))


def rebuilt(model: OnnxModel) -> bytes:
    return written(model.skeleton, model.state_dict)


@pytest.mark.parametrize("name", ZOO)
def test_a_file_comes_back(name: str) -> None:
    content = exported(name, Export(False, 17, False))
    model = read(content)
    again = rebuilt(model)
    onnx.checker.check_model(onnx.load_model_from_string(again), full_check=True)
    inputs = ZOO[name].inputs()
    for a, b in zip(run(again, inputs), run(content, inputs), strict=True):
        assert torch.equal(a, b)
    tensors = sum(tensorfile.nbytes_of(tensor.dtype, tensor.shape) for tensor in model.state_dict.values())
    assert len(again) - tensors < 30_000
    second = read(again)
    assert second.program.to_json() == model.program.to_json()
    assert list(second.state_dict) == list(model.state_dict)
    assert second.skeleton == model.skeleton


def test_a_file_can_be_read_from_any_offset() -> None:
    model = read(exported("two-inputs", OLDER[0]))
    whole = rebuilt(model)
    assert layout_of(model.skeleton, model.state_dict).nbytes == len(whole)
    for start in range(0, len(whole), 97):
        for stop in (start, start + 1, start + 500, len(whole)):
            assert written(model.skeleton, model.state_dict, start, min(stop, len(whole))) == whole[start:stop]


def test_other_weights_take_the_place_of_the_old_ones() -> None:
    model = read(exported("tutorial", OLDER[0]))
    others = {name: torch.randn_like(tensor) / 10 for name, tensor in model.state_dict.items()}
    inputs = ZOO["tutorial"].inputs()
    expected = GraphNetwork(model.program, others)(*inputs)
    torch.testing.assert_close(run(written(model.skeleton, others), inputs)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.int32]
)
def test_tensors_of_every_dtype_come_back(dtype: torch.dtype) -> None:
    model = read(exported("tutorial", OLDER[0]))
    tensors = {
        **model.state_dict,
        "Δ": torch.tensor([[1, 0, 1]]).to(dtype),
        "none": torch.zeros(0, 3),
        "scalar": torch.tensor(2.0),
    }
    again = read(written(model.skeleton, tensors)).state_dict
    assert list(again) == list(tensors)
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor)


def test_what_no_onnx_file_can_hold_is_refused() -> None:
    with pytest.raises(BadProgram, match="'w' is torch"):
        layout(b"", [("w", torch.complex64, (1,))])
    with pytest.raises(BadProgram, match="larger than 2 GiB"):
        layout(b"", [("w", torch.float32, (2**15, 2**14))])


@pytest.mark.parametrize("name", ["two-inputs", "dense"])
def test_a_program_of_torch_export_is_written_under_its_names(name: str) -> None:
    network, inputs = ZOO[name].network(), ZOO[name].inputs(2)
    file = io.BytesIO()
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    torch.export.save(torch.export.export(network, inputs, dynamic_shapes=shapes), file)
    found = read_exported(file, read_pickled)
    skeleton = make_skeleton(GraphNetwork(found.program, found.state_dict), inputs)
    assert set(skeleton.names) == set(found.program.tensors.values())
    content = written(skeleton.content, {name: found.state_dict[name] for name in skeleton.names})
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    others = ZOO[name].inputs(3, seed=1)
    torch.testing.assert_close(run(content, others)[0], network(*others), atol=1e-4, rtol=1e-4)
    assert [value.name for value in model.graph.input] == [port.name for port in found.program.inputs]
    assert [value.name for value in model.graph.output] == [port.name for port in found.program.outputs]


def read_pickled(file: Any) -> StateDict:
    raise AssertionError("files of this release of torch hold no pickle")
