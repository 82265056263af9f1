"""Feature maps of a network: the output of each batch norm, and of each residual addition before its activation.

In a network without batch norms, the feature maps are the outputs of its convolutions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from nern.graph import roles
from nern.graph.batching import Batched
from nern.graph.interpreter import GraphNetwork
from nern.graph.program import Node
from nern.synthesis import NORMS
from nern.teachers import PROGRAMS, norms

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@contextmanager
def recorded(network: nn.Module, *, enabled: bool = True) -> Iterator[list[Tensor]]:
    """A context that collects the feature maps of forward passes, (B, channels, ...) each, in the order of computation.

    Maps are copied, because networks overwrite them in place. A module with `bn2` and `relu`, as in the ResNets for CIFAR and
    of torchvision, is taken for a residual block. The sum of a block is the input of its last activation. In a program, every
    sum of two maps of one shape is taken for the sum of a block. Unless `enabled`, no map is collected.
    """
    maps: list[Tensor] = []
    if not enabled:
        yield maps
        return
    if isinstance(network, PROGRAMS):
        with _recorded_nodes(network, maps):
            yield maps
        return
    sums: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        maps.append(output.clone())

    def remember(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        sums[module] = args[0].clone()

    def keep_sum(module: Any, args: Any, output: Tensor) -> None:
        maps.append(sums.pop(module.relu))

    kinds = NORMS if any(isinstance(module, NORMS) for module in network.modules()) else CONVOLUTIONS
    hooks = [module.register_forward_hook(keep) for module in network.modules() if isinstance(module, kinds)]
    for module in network.modules():
        if hasattr(module, "bn2") and isinstance(relu := getattr(module, "relu", None), nn.Module):
            hooks += [relu.register_forward_pre_hook(remember), module.register_forward_hook(keep_sum)]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _recorded_nodes(network: GraphNetwork | Batched, maps: list[Tensor]) -> Iterator[None]:
    """A context that adds the feature maps of a program to `maps`."""
    operators = {node.operator for node in network.program.nodes}
    kinds = roles.NORMS if operators & roles.NORMS else roles.CONVOLUTIONS

    def keep(node: Node, arguments: Sequence[Any], result: Any) -> None:
        # Some batch norms also give the statistics of the batch.
        output = result[0] if isinstance(result, tuple | list) else result
        if node.operator in kinds or norms.is_residual_sum(node, arguments):
            maps.append(output.clone())

    with network.observed(keep):
        yield
