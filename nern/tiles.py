"""What the predictor predicts at one coordinate.

A *tile* is some consecutive channels of one filter, predicted together: usually one kernel, but of kernels with few
weights as many as make sixteen. Tiles are addressed by (layer, filter, tile) and numbered flat, layer by layer and
row-major; that number is called `index` throughout. A *head* is the last layer of the predictor for one shape of tile.

With small kernels "cropped", as the authors of NeRN do it, a tile is always one kernel and there is one head, for the
largest kernel; smaller ones are its centre.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from nern.layers import Layer
from nern.request.options import SmallKernels

Shape = tuple[int, ...]

# A kernel of fewer weights than a 3x3 one is not worth a pass through the predictor, nor an index in the permutation.
WHOLE_KERNEL_WEIGHTS = 9

# What a tile of such kernels has instead; it divides most numbers of channels.
TILE_WEIGHTS = 16


class Tiles:
    """The tiles of some layers. Holds a few integers a layer, never a table of all tiles.

    `heads` are the shapes of tiles (channels, *kernel_size) that the predictor has to know. The tiles of layer l have the
    shape `heads[head[l]]` and span `width[l]` channels.
    """

    def __init__(self, layers: Sequence[Layer], small: SmallKernels) -> None:
        self.layers = tuple(layers)
        self.small: SmallKernels = small
        if small == "cropped":
            shapes: list[Shape] = [(1, *_largest_size(layers))] * len(layers)
        else:
            shapes = [(_width(layer), *layer.kernel_size) for layer in layers]
        self.heads: tuple[Shape, ...] = tuple(dict.fromkeys(shapes))
        self.head = tuple(self.heads.index(shape) for shape in shapes)
        self.width = tuple(shape[0] for shape in shapes)
        self.per_filter = tuple(-(-layer.channels // width) for layer, width in zip(layers, self.width, strict=True))
        counts = (layer.filters * tiles for layer, tiles in zip(layers, self.per_filter, strict=True))
        self.starts = tuple(accumulate(counts, initial=0))
        self._tables: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return self.starts[-1]

    def count(self, layer: int) -> int:
        """How many tiles one layer has."""
        return self.starts[layer + 1] - self.starts[layer]

    @property
    def extents(self) -> tuple[int, int, int]:
        """How many values each axis of (layer, filter, tile) can have."""
        return len(self.layers), max(layer.filters for layer in self.layers), max(self.per_filter)

    def of(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Layer, filter and tile of flat indices; three int64 tensors of the same shape, on the same device."""
        if index.device not in self._tables:
            # Kept, because whatever is copied to a GPU makes it wait.
            self._tables[index.device] = torch.tensor([self.starts[:-1], self.per_filter], device=index.device)
        starts, per_filter = self._tables[index.device]
        layer = torch.searchsorted(starts, index, right=True) - 1
        within, tiles = index - starts[layer], per_filter[layer]
        return layer, within // tiles, within % tiles

    def by_layer(self, index: Tensor) -> Iterator[tuple[int, slice]]:
        """Cuts sorted flat indices at the layers' borders: (layer, the slice of `index`)."""
        borders = torch.searchsorted(index, torch.tensor(self.starts)).tolist()
        for layer, (first, last) in enumerate(pairwise(borders)):
            if first < last:
                yield layer, slice(first, last)

    def count_weights(self, index: Tensor) -> int:
        """How many weights the tiles at sorted flat indices have, without what overhangs."""
        count = 0
        for layer, where in self.by_layer(index):
            inside = self.inside(layer, index[where] - self.starts[layer])
            channels = (where.stop - where.start) * self.width[layer] if inside is None else int(inside.sum())
            count += math.prod(self.layers[layer].kernel_size) * channels
        return count

    def cut(self, layer: int, weight: Tensor) -> Tensor:
        """The weight of a layer as tiles: (tiles, width, *kernel_size). Where a filter's last tile overhangs, it is zero."""
        flat = weight.reshape(self.layers[layer].filters, self.layers[layer].channels, -1)
        over = self.per_filter[layer] * self.width[layer] - flat.shape[1]
        padded = F.pad(flat, (0, 0, 0, over)) if over else flat
        return padded.reshape(-1, self.width[layer], *self.layers[layer].kernel_size)

    def join(self, layer: int, tiles: Tensor) -> Tensor:
        """The inverse of `cut`, for all tiles of a layer or those of some of its filters: (filters, channels, *kernel_size)."""
        of_filter = self.per_filter[layer] * self.width[layer]
        return tiles.reshape(-1, of_filter, *self.layers[layer].kernel_size)[:, : self.layers[layer].channels]

    def inside(self, layer: int, number: Tensor) -> Tensor | None:
        """Which channels of tiles (n,) exist: bool (n, width), or None if no tile of the layer overhangs."""
        over = self.per_filter[layer] * self.width[layer] - self.layers[layer].channels
        if not over:
            return None
        first = (number % self.per_filter[layer])[:, None] * self.width[layer]
        channel = first + torch.arange(self.width[layer], device=number.device)
        return channel < self.layers[layer].channels

    def crop(self, layer: int, predicted: Tensor) -> Tensor:
        """What a head predicted, (n, *shape of the head), as tiles of one layer: (n, width, *kernel_size).

        A smaller kernel takes rows and columns int(K/2 - k/2) to int(K/2 - k/2) + k, as in the authors' code.
        """
        size = self.layers[layer].kernel_size
        whole = self.heads[self.head[layer]][1:]
        corner = [
            slice(int(K / 2 - k / 2), int(K / 2 - k / 2) + k) for K, k in zip(whole, _aligned(size, len(whole)), strict=True)
        ]
        return predicted[(slice(None), slice(None), *corner)].reshape(len(predicted), -1, *size)


def _width(layer: Layer) -> int:
    weights = math.prod(layer.kernel_size)
    return 1 if weights >= WHOLE_KERNEL_WEIGHTS else min(layer.channels, -(-TILE_WEIGHTS // weights))


def _largest_size(layers: Sequence[Layer]) -> Shape:
    """The smallest extents that every kernel of these layers is a crop of."""
    dimensions = max(len(layer.kernel_size) for layer in layers)
    return tuple(max(extents) for extents in zip(*(_aligned(layer.kernel_size, dimensions) for layer in layers), strict=True))


def _aligned(size: Shape, dimensions: int) -> Shape:
    return (1,) * (dimensions - len(size)) + size
