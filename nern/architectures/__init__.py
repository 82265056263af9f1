"""Network architectures: recognising them in a state_dict, and building networks from a state_dict.

An architecture is recognised by the names and shapes of the tensors. The facts about each architecture come from `table.json`.
Only `build` imports torch.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nern.architectures.heads import Head
from nern.architectures.matching import (
    Match,
    architectures,
    groups,
    input_shape,
    match,
    nearest,
    paper_layers,
    recognise,
    shapes_of,
)
from nern.architectures.table import Kind, Shape

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Head",
    "Kind",
    "Match",
    "Shape",
    "architectures",
    "build",
    "groups",
    "input_shape",
    "match",
    "nearest",
    "paper_layers",
    "recognise",
    "shapes_of",
]


def build(name: str, state_dict: "Mapping[str, Tensor]") -> "nn.Module":
    """The network of this architecture with these weights, in float32 and in eval mode. Its parameters have no gradients.

    Its tensors have bare names: `match(...).view` has the name in the state_dict for each. It takes inputs of the shape
    `match(...).input_shape`, with the batch first, and returns the outputs `match(...).outputs`.

    Raises UnknownArchitecture if there is no architecture of this name, the state_dict does not match it, or the library that
    builds it is not installed.
    """
    from nern.architectures import networks  # imports torch

    return networks.build(name, state_dict)
