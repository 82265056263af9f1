"""Rendering: from a representation to weights, reproducibly.

A kernel's bits must not depend on what else is asked for, but the sums inside a matrix product may be ordered
differently for different numbers of rows. So tiles are always rendered in the same aligned blocks of one layer, padded
to the same number of rows.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from nern.representation import Representation

# Large enough to keep a matrix product busy, small enough that one kernel is cheap.
BLOCK_TILES = 256


def blocks_of(tiles: int) -> int:
    """How many blocks a layer of that many tiles has."""
    return -(-tiles // BLOCK_TILES)


def narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """float32 numbers in the dtype of a layer; what that can't hold, such as 70,000 in float16, becomes the largest it can."""
    if torch.finfo(dtype).max < torch.finfo(tensor.dtype).max:
        tensor = tensor.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
    return tensor.to(dtype)


@torch.inference_mode()
def render_block(representation: Representation, layer: int, block: int) -> Tensor:
    """The tiles of one block of a layer, in the layer's dtype: (at most BLOCK_TILES, width, *kernel_size)."""
    first = block * BLOCK_TILES
    count = min(BLOCK_TILES, representation.tiles.count(layer) - first)
    row = torch.arange(BLOCK_TILES).clamp_max(count - 1)
    [(_, _, tiles)] = representation.render(representation.tiles.starts[layer] + first + row)
    return narrowed(tiles[:count], representation.layers[layer].dtype).contiguous()


def render_blocks(representation: Representation, layer: int) -> Iterator[Tensor]:
    """All blocks of a layer, in order."""
    for block in range(blocks_of(representation.tiles.count(layer))):
        yield render_block(representation, layer, block)


def render_layer(representation: Representation, layer: int) -> Tensor:
    """The whole weight of a layer, in its shape and dtype."""
    tiles = torch.cat(list(render_blocks(representation, layer)))
    return representation.tiles.join(layer, tiles).reshape(representation.layers[layer].shape)
