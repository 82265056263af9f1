"""Network architectures: recognising them in a state_dict, and building networks from a state_dict.

An architecture is recognised by the names and shapes of the tensors. The facts about each architecture come from `table.json`.
Only `build` imports torch.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nern.architectures.matching import (
    Match,
    architectures,
    groups,
    input_shape,
    match,
    paper_layers,
    recognise,
    shapes_of,
)
from nern.architectures.table import Shape

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Match",
    "Shape",
    "architectures",
    "build",
    "groups",
    "input_shape",
    "match",
    "paper_layers",
    "recognise",
    "shapes_of",
]


def build(name: str, state_dict: "Mapping[str, Tensor]") -> "nn.Module":
    """The network of this architecture with these weights, in float32 and in eval mode. Its parameters have no gradients.

    Raises UnknownArchitecture if there is no architecture of this name or the state_dict does not match it.
    """
    from nern.architectures import networks  # imports torch

    return networks.build(name, state_dict)
