"""The function that calls a network, whatever kind of module it is and whatever it returns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nern.graph.batching import Batched
from nern.graph.interpreter import GraphNetwork
from nern.teachers.renamed import Renamed

Batch: TypeAlias = tuple[Tensor, ...]
"""A batch of inputs: one tensor (B, ...) for each input of the network, in the order of the inputs."""

Outputs: TypeAlias = dict[str, Tensor]
"""The outputs of a network by name, in order."""

Weights: TypeAlias = Mapping[str, Tensor]
"""Tensors by the names that they have in the checkpoint."""

# The name of the output of a module that returns one tensor.
ONLY_OUTPUT = "output"

# The modules that interpret a program. Their nodes can be observed.
PROGRAMS = (GraphNetwork, Batched)

# The modules whose `forward` takes the weights by the names of the checkpoint.
TAKE_WEIGHTS = (*PROGRAMS, Renamed)


def call(network: nn.Module, weights: Weights, inputs: Batch) -> Outputs:
    """The outputs of a network for a batch of inputs. `weights` replace the tensors of the network that have these names.

    The outputs of a program have the names of its ports, those of an architecture the names in the table of architectures.
    Another module may return a tensor, or dictionaries, lists and tuples of tensors. An output of such a module is named by the
    keys and numbers that lead to it, joined by dots. The only tensor is called ONLY_OUTPUT. Values that are no tensors are left
    out.
    """
    if isinstance(network, TAKE_WEIGHTS):
        result = network(*inputs, weights=weights)
    else:
        result = functional_call(network, dict(weights), inputs)
    outputs = dict(_named(result, ""))
    names = _names_of(network)
    return dict(zip(names, outputs.values(), strict=True)) if len(names) == len(outputs) else outputs


def device_of(network: nn.Module) -> torch.device:
    """The device of a network's parameters."""
    return next(network.parameters()).device


def _names_of(network: nn.Module) -> Sequence[str]:
    """The names of the outputs in order, if they are known."""
    if isinstance(network, PROGRAMS):
        return [port.name for port in network.program.outputs]
    return network.outputs if isinstance(network, Renamed) else ()


def _named(result: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(result, Tensor):
        yield name or ONLY_OUTPUT, result
    elif isinstance(result, Mapping):
        for key, value in result.items():
            yield from _named(value, f"{name}.{key}" if name else f"{key}")
    elif isinstance(result, list | tuple):
        yield from _named(dict(enumerate(result)), name)
