"""An ONNX skeleton for a program that did not come from ONNX, made with torch's own exporter. Needs onnxscript."""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence

import torch
from onnx import GraphProto
from torch import Tensor

from nern.errors import BadProgram
from nern.graph.interpreter import GraphNetwork
from nern.graph.onnx_model import strip
from nern.graph.onnx_writer import Skeleton


def make_skeleton(network: GraphNetwork, inputs: Sequence[Tensor]) -> Skeleton:
    """Exports the network. Tensors, inputs and outputs have their names in the program.

    `inputs` are examples. Raises BadProgram for a network that torch can't export.
    """
    program = network.program
    free = {0: torch.export.Dim.DYNAMIC}
    shapes = [free if port.shape and port.shape[0] is None else None for port in program.inputs]
    try:
        with _quiet():
            exported = torch.onnx.export(
                network,
                tuple(inputs),
                dynamo=True,
                verbose=False,
                optimize=False,  # the optimizer folds batch norms into weights
                dynamic_shapes={"inputs": tuple(shapes)},
                input_names=[port.name for port in program.inputs],
                output_names=[port.name for port in program.outputs],
            )
    except torch.onnx.OnnxExporterError as error:
        raise BadProgram("torch can't write this network as ONNX") from error
    assert exported is not None
    model = exported.model_proto
    names = network.attribute_names()
    wanted = {attribute: name for name, attribute in names.items()}
    found = [proto.name for proto in model.graph.initializer if proto.name in wanted]
    taken = {program.tensors[name] for node in program.nodes for name in node.references() if name in program.tensors}
    if lost := taken - {wanted[attribute] for attribute in found}:
        raise BadProgram(f"torch's exporter does not keep the tensor {min(lost)!r}, so the network can't be written as ONNX")
    _rename(model.graph, {attribute: wanted[attribute] for attribute in found})
    kept = [proto for proto in model.graph.initializer if proto.name not in names]
    copies = [type(proto).FromString(proto.SerializeToString()) for proto in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
    strip(model)
    return Skeleton(model.SerializeToString(deterministic=True), tuple(wanted[attribute] for attribute in found), widened=True)


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    """Renames values. Another value that has one of the new names gets a longer one."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {value.name for value in (*graph.input, *graph.output, *graph.initializer)} - names.keys()
    changes = {name: f"{name}_value" for name in names.values() if name in taken and name not in names} | names
    for node in graph.node:
        node.input[:] = [changes.get(name, name) for name in node.input]
        node.output[:] = [changes.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = changes.get(value.name, value.name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's reports of its progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
