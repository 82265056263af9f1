"""The function that calls a network, whatever kind of module it is and whatever it returns."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

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

# The modules whose `forward` takes the weights by the names of the checkpoint.
TAKE_WEIGHTS = (GraphNetwork, Renamed)


def call(network: nn.Module, weights: Weights, inputs: Batch) -> Outputs:
    """The outputs of a network for a batch of inputs. `weights` replace the tensors of the network that have these names.

    The outputs of a program have the names of its ports. A module of an architecture may return a tensor, or dictionaries,
    lists and tuples of tensors. An output of such a module is named by the keys and numbers that lead to it, joined by dots.
    The only tensor is called ONLY_OUTPUT. Values that are no tensors are left out.
    """
    if isinstance(network, TAKE_WEIGHTS):
        result = network(*inputs, weights=weights)
    else:
        result = functional_call(network, dict(weights), inputs)
    if isinstance(network, GraphNetwork):
        results = result if isinstance(result, tuple) else (result,)
        return {port.name: value for port, value in zip(network.program.outputs, results, strict=True)}
    return dict(_named(result, ""))


def device_of(network: nn.Module) -> torch.device:
    """The device of a network's parameters."""
    return next(network.parameters()).device


def _named(result: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(result, Tensor):
        yield name or ONLY_OUTPUT, result
    elif isinstance(result, Mapping):
        for key, value in result.items():
            yield from _named(value, f"{name}.{key}" if name else f"{key}")
    elif isinstance(result, list | tuple):
        yield from _named(dict(enumerate(result)), name)
