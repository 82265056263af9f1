"""Rendering of weights from a representation, with reproducible bits.

The bits of a kernel must not depend on the other kernels that a client asks for. A matrix product may add its terms in another
order if it has another number of rows. Tiles are therefore rendered in fixed blocks. A block has BLOCK_TILES consecutive tiles
of one layer. The last block of a layer may have fewer tiles; it is computed with the same number of rows.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from nern.representation import Representation

# Large enough for efficient matrix products, and small enough to make the rendering of a single kernel cheap.
BLOCK_TILES = 256


def blocks_of(tiles: int) -> int:
    """The number of blocks of a layer with so many tiles."""
    return -(-tiles // BLOCK_TILES)


def narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A float32 tensor in the dtype of a layer; same shape.

    A number outside the range of the dtype, such as 70,000 in float16, becomes the nearest finite number of the dtype.
    """
    if torch.finfo(dtype).max < torch.finfo(tensor.dtype).max:
        tensor = tensor.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
    return tensor.to(dtype)


@torch.inference_mode()
def render_block(representation: Representation, layer: int, block: int) -> Tensor:
    """The tiles of one block of a layer, in the layer's dtype: (tiles, width, *kernel_size), at most BLOCK_TILES tiles."""
    first = block * BLOCK_TILES
    count = min(BLOCK_TILES, representation.tiles.count(layer) - first)
    row = torch.arange(BLOCK_TILES).clamp_max(count - 1)
    [(_, _, tiles)] = representation.render(representation.tiles.starts[layer] + first + row)
    return narrowed(tiles[:count], representation.layers[layer].dtype).contiguous()


def render_blocks(representation: Representation, layer: int) -> Iterator[Tensor]:
    """All blocks of a layer, in order; see `render_block`."""
    for block in range(blocks_of(representation.tiles.count(layer))):
        yield render_block(representation, layer, block)


def render_layer(representation: Representation, layer: int) -> Tensor:
    """The whole weight of a layer, in the shape and the dtype of the layer: (filters, channels, *kernel_size)."""
    tiles = torch.cat(list(render_blocks(representation, layer)))
    return representation.tiles.join(layer, tiles).reshape(representation.layers[layer].shape)
