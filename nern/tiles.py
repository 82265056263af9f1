"""Tiles: the weights that the predictor predicts for one coordinate.

A *tile* is a number of consecutive channels of one filter that are predicted together. A kernel of at least nine weights is one
tile. Smaller kernels are grouped into tiles of about sixteen weights. Kernels that are too large are cut into tiles of sixteen
weights. The coordinate of a tile is (layer, filter, tile). All tiles are numbered layer by layer, and in each layer filter by
filter; this number is the *index* of the tile. A *head* is the last layer of the predictor for one shape of tile.

With the option small_kernels "cropped", a tile is always one kernel, as in the authors' code. There is one head, for the
largest kernel size. A smaller kernel is the centre of the prediction. Kernels that are too large are cut all the same.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from nern.layers import Layer
from nern.request.options import SmallKernels

Shape = tuple[int, ...]

# A kernel of at least so many weights is a tile of its own. Smaller kernels are grouped, because each tile needs a pass through
# the predictor and a number in the permutation.
WHOLE_KERNEL_WEIGHTS = 9

# Weights of a tile of smaller kernels. Most numbers of channels are multiples of sixteen.
TILE_WEIGHTS = 16

# A kernel with a larger extent, such as those of networks for raw audio, would need a head of very many outputs.
MAX_EXTENT = 64

# The same, for the product of the extents of a kernel whose name does not end in "weight". Such a name is usual where the input
# and output channels are the last dimensions (Keras). Release 0.1.0 did not find these layers, so no artefact has them whole.
MAX_UNNAMED_WEIGHTS = 128


class Tiles:
    """The tiles of the represented layers. This class stores a few integers for each layer, and no table of all tiles.

    units: the layers as they are cut into tiles: a layer whose kernels are too large counts as one of more channels, in which
        each kernel is one weight.
    heads: the shapes of tiles (width, *kernel_size) that the predictor needs a head for.
    head: for each layer, the number of its head.
    width: for each layer, the number of channels in a tile.
    per_filter: for each layer, the number of tiles in a filter. The last tile may have more channels than the filter has left;
        it then *overhangs*, and its excess weights are ignored.
    starts: for each layer, the index of its first tile, followed by the number of all tiles.
    """

    def __init__(self, layers: Sequence[Layer], small_kernels: SmallKernels) -> None:
        self.layers = tuple(layers)
        self.units = tuple(_unit(layer) for layer in layers)
        self.small_kernels: SmallKernels = small_kernels
        shapes: list[Shape] = [(_width(unit), *unit.kernel_size) for unit in self.units]
        if small_kernels == "cropped":
            largest = _largest_size([layer for layer in layers if not is_cut(layer)])
            shapes = [shape if is_cut(layer) else (1, *largest) for layer, shape in zip(layers, shapes, strict=True)]
        self.heads: tuple[Shape, ...] = tuple(dict.fromkeys(shapes))
        self.head = tuple(self.heads.index(shape) for shape in shapes)
        self.width = tuple(shape[0] for shape in shapes)
        self.per_filter = tuple(-(-unit.channels // width) for unit, width in zip(self.units, self.width, strict=True))
        counts = (layer.filters * tiles for layer, tiles in zip(layers, self.per_filter, strict=True))
        self.starts = tuple(accumulate(counts, initial=0))
        self._tables: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return self.starts[-1]

    def count(self, layer: int) -> int:
        """The number of tiles of one layer."""
        return self.starts[layer + 1] - self.starts[layer]

    @property
    def extents(self) -> tuple[int, int, int]:
        """The number of values of each axis of the coordinate (layer, filter, tile)."""
        return len(self.layers), max(layer.filters for layer in self.layers), max(self.per_filter)

    def of(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The layers, filters and tiles at indices, int64 (n,): three int64 tensors (n,) on the same device."""
        if index.device not in self._tables:
            # The table is kept for each device, because a copy to a GPU waits until the GPU has finished all earlier work.
            self._tables[index.device] = torch.tensor([self.starts[:-1], self.per_filter], device=index.device)
        starts, per_filter = self._tables[index.device]
        layer = torch.searchsorted(starts, index, right=True) - 1
        within, tiles = index - starts[layer], per_filter[layer]
        return layer, within // tiles, within % tiles

    def by_layer(self, index: Tensor) -> Iterator[tuple[int, slice]]:
        """Splits sorted indices, int64 (n,), by layer: yields the layer and the slice of `index` that belongs to it."""
        borders = torch.searchsorted(index, torch.tensor(self.starts)).tolist()
        for layer, (first, last) in enumerate(pairwise(borders)):
            if first < last:
                yield layer, slice(first, last)

    def count_weights(self, index: Tensor) -> int:
        """The number of weights in the tiles at sorted indices, int64 (n,), without weights that overhang."""
        count = 0
        for layer, where in self.by_layer(index):
            inside = self.inside(layer, index[where] - self.starts[layer])
            channels = (where.stop - where.start) * self.width[layer] if inside is None else int(inside.sum())
            count += math.prod(self.units[layer].kernel_size) * channels
        return count

    def cut(self, layer: int, weight: Tensor) -> Tensor:
        """The weight of a layer, (filters, channels, *kernel_size), as tiles: (tiles, width, *kernel_size of the unit).

        Weights that overhang are 0.
        """
        flat = weight.reshape(self.units[layer].filters, self.units[layer].channels, -1)
        over = self.per_filter[layer] * self.width[layer] - flat.shape[1]
        padded = F.pad(flat, (0, 0, 0, over)) if over else flat
        return padded.reshape(-1, self.width[layer], *self.units[layer].kernel_size)

    def join(self, layer: int, tiles: Tensor) -> Tensor:
        """The inverse of `cut`: tiles to a weight (filters, channels, *kernel_size) of the unit.

        The tiles are those of all filters, or of some whole filters, of the layer.
        """
        channels = self.per_filter[layer] * self.width[layer]
        return tiles.reshape(-1, channels, *self.units[layer].kernel_size)[:, : self.units[layer].channels]

    def inside(self, layer: int, number: Tensor) -> Tensor | None:
        """Which channels of tiles do not overhang: tile numbers within the layer, int64 (n,), to bool (n, width).

        None if no tile of the layer overhangs.
        """
        over = self.per_filter[layer] * self.width[layer] - self.units[layer].channels
        if not over:
            return None
        first = (number % self.per_filter[layer])[:, None] * self.width[layer]
        channel = first + torch.arange(self.width[layer], device=number.device)
        return channel < self.units[layer].channels

    def crop(self, layer: int, predicted: Tensor) -> Tensor:
        """The tiles of one layer in predictions of its head: (n, *shape of the head) to (n, width, *kernel_size).

        Along each axis, a kernel of extent k takes k numbers from position int(K/2 - k/2) of the K predicted numbers, as in the
        authors' code.
        """
        size = self.units[layer].kernel_size
        whole = self.heads[self.head[layer]][1:]
        corner = [
            slice(int(K / 2 - k / 2), int(K / 2 - k / 2) + k) for K, k in zip(whole, _aligned(size, len(whole)), strict=True)
        ]
        return predicted[(slice(None), slice(None), *corner)].reshape(len(predicted), -1, *size)


def is_cut(layer: Layer) -> bool:
    """Whether the kernels of a layer are too large to be tiles."""
    if max(layer.kernel_size) > MAX_EXTENT:
        return True
    return not layer.name.endswith("weight") and math.prod(layer.kernel_size) > MAX_UNNAMED_WEIGHTS


def _unit(layer: Layer) -> Layer:
    if not is_cut(layer):
        return layer
    return replace(layer, shape=(layer.filters, layer.channels * math.prod(layer.kernel_size)))


def _width(layer: Layer) -> int:
    weights = math.prod(layer.kernel_size)
    return 1 if weights >= WHOLE_KERNEL_WEIGHTS else min(layer.channels, -(-TILE_WEIGHTS // weights))


def _largest_size(layers: Sequence[Layer]) -> Shape:
    """The largest extent of all kernels of these layers, for each axis."""
    dimensions = max((len(layer.kernel_size) for layer in layers), default=0)
    return tuple(max(extents) for extents in zip(*(_aligned(layer.kernel_size, dimensions) for layer in layers), strict=True))


def _aligned(size: Shape, dimensions: int) -> Shape:
    return (1,) * (dimensions - len(size)) + size
