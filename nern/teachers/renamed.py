"""A network whose tensors have other names in the checkpoint than in its module."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from nern.prefixes import View

NOTHING: Mapping[str, Tensor] = {}


class Renamed(nn.Module):
    """A module that takes weights by the names of the checkpoint, for example with a prefix.

    `view` has the names of the checkpoint for those of the module. `aliases` has the names of tied tensors, each with the name
    of the tensor whose weights it takes.
    """

    def __init__(self, module: nn.Module, view: View, aliases: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.module = module
        self._sources = {bare: (aliases or {}).get(name, name) for bare, name in view.bare.items()}

    def forward(self, *inputs: Tensor, weights: Mapping[str, Tensor] = NOTHING) -> Any:
        """What the module returns for these inputs. `weights`, by the names of the checkpoint, replace its tensors.

        Weights of other names belong to tensors that the module does not have. They change nothing.
        """
        own = {bare: weights[name] for bare, name in self._sources.items() if name in weights}
        return functional_call(self.module, own, inputs)
