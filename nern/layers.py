"""Which tensors of a state_dict are convolutions, and the coordinates of their kernels.

A *kernel* is addressed by (layer, filter, channel): it connects input channel `channel` to output channel `filter` of
the `layer`-th represented layer. Kernels are also numbered flat, layer by layer and row-major (filter outer, channel
inner); that number is called `index` throughout.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from nern.errors import NotRepresentable

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """One convolution: a weight of shape (filters, channels, *size), where channels is input channels / groups."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def filters(self) -> int:
        return self.shape[0]

    @property
    def channels(self) -> int:
        return self.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a kernel."""
        return self.shape[2], self.shape[3]

    @property
    def kernels(self) -> int:
        return self.filters * self.channels

    @property
    def weights(self) -> int:
        return math.prod(self.shape)


def find_layers(state_dict: Mapping[str, Tensor]) -> list[Layer]:
    """All 2-D convolutions, in the order of the state_dict.

    A convolution is recognised by its shape: a floating-point weight with four dimensions.
    """
    return [
        Layer(name, tuple(tensor.shape), tensor.dtype)
        for name, tensor in state_dict.items()
        if tensor.ndim == 4 and tensor.is_floating_point() and name.endswith("weight") and tensor.numel() > 0
    ]


def select_layers(layers: Sequence[Layer], names: Iterable[str] | None) -> list[Layer]:
    """The layers of these names in network order, or all of them.

    Raises NotRepresentable for a name that is no convolution, and when nothing is left.
    """
    wanted = {layer.name for layer in layers} if names is None else set(names)
    if unknown := wanted - {layer.name for layer in layers}:
        raise NotRepresentable(f"{sorted(unknown)[0]!r} is not a convolution of this network")
    selected = [layer for layer in layers if layer.name in wanted]
    if not selected:
        raise NotRepresentable("the network has no convolution to represent")
    return selected


class Coordinates:
    """Maps flat kernel indices to (layer, filter, channel) and back.

    Holds a few integers a layer, never a table of all kernels.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.starts = tuple(accumulate((layer.kernels for layer in layers), initial=0))
        self._starts = torch.tensor(self.starts[:-1])
        self._channels = torch.tensor([layer.channels for layer in layers])

    def __len__(self) -> int:
        """How many kernels there are."""
        return self.starts[-1]

    def of(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Layer, filter and channel of flat indices; three int64 tensors of the same shape."""
        layer = torch.searchsorted(self._starts, index, right=True) - 1
        within = index - self._starts[layer]
        channels = self._channels[layer]
        return layer, within // channels, within % channels
