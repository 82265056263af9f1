"""A network whose tensors have longer names in the checkpoint than in the module."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

NOTHING: Mapping[str, Tensor] = {}


class Prefixed(nn.Module):
    """A module whose weights are given by the names of the checkpoint: `prefix`, then the name in the module."""

    def __init__(self, module: nn.Module, prefix: str) -> None:
        super().__init__()
        self.module = module
        self.prefix = prefix

    def forward(self, *inputs: Tensor, weights: Mapping[str, Tensor] = NOTHING) -> Any:
        """What the module returns for these inputs. `weights` replace tensors of the module.

        Weights without the prefix belong to tensors that the module does not have. They change nothing.
        """
        own = {name.removeprefix(self.prefix): weight for name, weight in weights.items() if name.startswith(self.prefix)}
        return functional_call(self.module, own, inputs)
