"""Interpreting a program with torch, differentiably."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nern import tensorfile
from nern.errors import BadProgram
from nern.graph import operators
from nern.graph.program import Argument, Node, Program, Ref

# An extent of a damaged or hostile file can be anything.
MAX_ELEMENTS = 2**32

NOTHING: Mapping[str, Tensor] = {}

Observer = Callable[[Node, Sequence[Any], Any], None]
"""Is called after every node with the node, its positional arguments and its result."""


class GraphNetwork(nn.Module):
    """A program with its tensors, as a module. `forward` takes the inputs in order; it returns a tensor, or a tuple of them.

    Floating-point tensors are in float32, and so are inputs and constants. None has a gradient. Raises BadProgram for an
    operator that is not in the allow-list, and for a tensor that the state_dict lacks.
    """

    def __init__(self, program: Program, state_dict: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.program = program
        self._functions = [operators.find(node.operator, node.place) for node in program.nodes]
        self._last_uses = _last_uses(program)
        self._observers: list[Observer] = []
        # The names of tensors may be those of attributes of a module, so the tensors are numbered.
        self._tensors = {name: f"tensor_{number}" for number, name in enumerate(dict.fromkeys(program.tensors.values()))}
        for name, attribute in self._tensors.items():
            if name not in state_dict:
                raise BadProgram(f"the graph takes the tensor {name!r}, which the checkpoint does not have")
            tensor = state_dict[name]
            if tensor.is_floating_point():
                self.register_parameter(attribute, nn.Parameter(tensor.float(), requires_grad=False))
            else:
                self.register_buffer(attribute, tensor)
        self._constants = {name: f"constant_{number}" for number, name in enumerate(program.constants)}
        for name, attribute in self._constants.items():
            constant = program.constants[name]
            tensor = tensorfile.from_bytes(constant.data, tensorfile.DTYPES[constant.dtype], constant.shape)
            self.register_buffer(attribute, _float32(tensor))

    def forward(self, *inputs: Tensor, weights: Mapping[str, Tensor] = NOTHING) -> Any:
        """The outputs for these inputs. `weights`, by the names of the state_dict, replace tensors of the network.

        An error of torch carries a note that names the operator and its place.
        """
        values: dict[str, Any] = {port.name: _float32(value) for port, value in zip(self.program.inputs, inputs, strict=True)}
        device = next((value.device for value in inputs), torch.device("cpu"))
        values |= {name: getattr(self, attribute) for name, attribute in self._constants.items()}
        for value, name in self.program.tensors.items():
            values[value] = weights[name] if name in weights else getattr(self, self._tensors[name])
        for number, (node, function) in enumerate(zip(self.program.nodes, self._functions, strict=True)):
            arguments = [_resolved(argument, values) for argument in node.arguments]
            keywords = {name: _resolved(value, values) for name, value in node.keywords.items()}
            if node.operator in operators.ON_DEVICE:
                keywords["device"] = device
            try:
                result = function(*arguments, **keywords)
                if isinstance(result, Tensor) and result.numel() > MAX_ELEMENTS:
                    raise BadProgram(f"the graph computes a tensor of the shape {list(result.shape)}, which is too large")
            except Exception as error:
                error.add_note(f"in the operator {node.operator} at {node.place!r}")
                raise
            for observe in self._observers:
                observe(node, arguments, result)
            results = result if len(node.results) > 1 else (result,)
            values |= {name: value for name, value in zip(node.results, results, strict=False) if name is not None}
            # Values are dropped after their last use, as the local variables of a module's `forward` are.
            for name in self._last_uses[number]:
                del values[name]
        outputs = tuple(values[port.name] for port in self.program.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def attribute_names(self) -> dict[str, str]:
        """For each tensor of the state_dict that the program takes, the name of the parameter or buffer of this module."""
        return dict(self._tensors)

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """A context in which `observer` is called after every node of every forward pass."""
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _resolved(argument: Argument, values: Mapping[str, Any]) -> Any:
    if isinstance(argument, Ref):
        return values[argument.name]
    if isinstance(argument, Sequence) and not isinstance(argument, str):
        return [_resolved(part, values) for part in argument]
    return argument


def _last_uses(program: Program) -> list[list[str]]:
    """For each node, the values that nothing uses after it."""
    outputs = {port.name for port in program.outputs}
    last: dict[str, int] = {}
    for number, node in enumerate(program.nodes):
        last.update(dict.fromkeys((name for name in node.results if name is not None), number))
        last.update(dict.fromkeys(node.references(), number))
    dropped: list[list[str]] = [[] for _ in program.nodes]
    for name, number in last.items():
        if name not in outputs:
            dropped[number].append(name)
    return dropped
