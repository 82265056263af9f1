"""A program: a network as data. It lists operators from an allow-list and names the tensors that they take.

A program comes from a file of ONNX or torch.export, or from a description of a sequential network. The weights are not in the
program: they are the tensors of a state_dict. This module does not import torch. docs/graphs.md explains the JSON.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nern.errors import BadProgram

VERSION = 1


@dataclass(frozen=True)
class Ref:
    """The value of this name: an input, a tensor of the state_dict, a constant, or a result of an earlier node."""

    name: str


Argument: TypeAlias = "Ref | bool | int | float | str | Sequence[Argument] | None"


@dataclass(frozen=True)
class Node:
    """One call of an operator.

    operator: the name in the allow-list, such as `onnx.Conv` or `aten.conv2d.default`.
    arguments, keywords: the positional and the named arguments: values, literals, or lists of these.
    results: the name of each result, or None for a result that nothing uses.
    place: where the node stands in the uploaded file, for messages.
    """

    operator: str
    arguments: tuple[Argument, ...]
    keywords: Mapping[str, Argument]
    results: tuple[str | None, ...]
    place: str = ""

    def references(self) -> Iterator[str]:
        """The names of all values that the node takes."""
        yield from _references([*self.arguments, *self.keywords.values()])


@dataclass(frozen=True)
class Port:
    """An input or an output: name, dtype in the notation of safetensors (`F32`), and extents. None is any extent.

    The shape of an output may be unknown (None).
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Constant:
    """A tensor that belongs to the program and not to the state_dict: dtype in the notation of safetensors, shape, bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Program:
    """A network as data.

    inputs, outputs: what the network takes and gives, in order. The name of an output is the name of a value.
    tensors: for each value that is a tensor of the state_dict, the name of the tensor.
    constants: the value of each other tensor.
    nodes: the calls, in order.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    tensors: Mapping[str, str]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {port.name for port in self.inputs} | self.tensors.keys() | self.constants.keys()
        for node in self.nodes:
            for name in node.references():
                if name not in known:
                    raise BadProgram(f"{node.operator} at {node.place!r} takes {name!r}, which no earlier node gives")
            for result in node.results:
                if result in known:
                    raise BadProgram(f"{node.operator} at {node.place!r} gives {result!r}, which exists already")
                known.update(() if result is None else (result,))
        for port in self.outputs:
            if port.name not in known:
                raise BadProgram(f"no node gives the output {port.name!r}")

    def to_json(self) -> dict[str, Any]:
        """The program as JSON values."""
        return {
            "version": VERSION,
            "inputs": [_port(port) for port in self.inputs],
            "outputs": [_port(port) for port in self.outputs],
            "tensors": dict(self.tensors),
            "constants": {
                name: {
                    "dtype": constant.dtype,
                    "shape": list(constant.shape),
                    "data": base64.b64encode(constant.data).decode(),
                }
                for name, constant in self.constants.items()
            },
            "nodes": [
                {
                    "operator": node.operator,
                    "arguments": [_encoded(argument) for argument in node.arguments],
                    "keywords": {name: _encoded(argument) for name, argument in node.keywords.items()},
                    "results": list(node.results),
                    "place": node.place,
                }
                for node in self.nodes
            ],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Program":
        """The program that `to_json` has written. Raises BadProgram."""
        try:
            if content["version"] != VERSION:
                raise BadProgram(f"the graph has version {content['version']}; this release reads version {VERSION}")
            return cls(
                inputs=tuple(_read_port(port) for port in content["inputs"]),
                outputs=tuple(_read_port(port) for port in content["outputs"]),
                tensors={str(value): str(name) for value, name in content["tensors"].items()},
                constants={
                    name: Constant(constant["dtype"], tuple(constant["shape"]), base64.b64decode(constant["data"]))
                    for name, constant in content["constants"].items()
                },
                nodes=tuple(
                    Node(
                        operator=node["operator"],
                        arguments=tuple(_decoded(argument) for argument in node["arguments"]),
                        keywords={name: _decoded(argument) for name, argument in node["keywords"].items()},
                        results=tuple(node["results"]),
                        place=node["place"],
                    )
                    for node in content["nodes"]
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadProgram("the graph is damaged, or not one of this service") from error


def _references(arguments: Sequence[Argument]) -> Iterator[str]:
    for argument in arguments:
        if isinstance(argument, Ref):
            yield argument.name
        elif isinstance(argument, Sequence) and not isinstance(argument, str):
            yield from _references(argument)


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "dtype": port.dtype, "shape": None if port.shape is None else list(port.shape)}


def _read_port(content: Mapping[str, Any]) -> Port:
    shape = content["shape"]
    return Port(content["name"], content["dtype"], None if shape is None else tuple(shape))


def _encoded(argument: Argument) -> Any:
    """A literal as it is, a list as a list, and a reference as an object. JSON has no infinity; `float` reads it from text."""
    if isinstance(argument, Ref):
        return {"value": argument.name}
    if isinstance(argument, float) and not -1e308 < argument < 1e308:
        return {"float": str(argument)}
    if isinstance(argument, Sequence) and not isinstance(argument, str):
        return [_encoded(part) for part in argument]
    return argument


def _decoded(content: Any) -> Argument:
    if isinstance(content, Mapping):
        return float(content["float"]) if "float" in content else Ref(content["value"])
    if isinstance(content, list):
        return [_decoded(part) for part in content]
    if content is None or isinstance(content, bool | int | float | str):
        return content
    raise BadProgram("the graph has an argument that is neither a value nor a literal")
