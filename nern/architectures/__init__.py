"""Network architectures: recognised by the names and shapes of a state_dict, rebuilt with its tensors.

What is known of each architecture comes from `table.json`, so that all but `build` does without torch.
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
    """The network in eval mode with these weights, float32.

    Raises UnknownArchitecture if there is no such name or the state_dict is of another network.
    """
    from nern.architectures import networks  # imports torch

    return networks.build(name, state_dict)
