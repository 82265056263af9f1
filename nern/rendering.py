"""Rendering: from a representation to weights, reproducibly.

A kernel's bits must not depend on what else is asked for, but the sums inside a matrix product may be ordered
differently for different numbers of rows. So kernels are always rendered in the same aligned blocks of one layer, padded
to the same number of rows.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from nern.representation import Representation

# Large enough to keep a matrix product busy, small enough that one kernel is cheap.
BLOCK = 256


def blocks_of(kernels: int) -> int:
    """How many blocks a layer of that many kernels has."""
    return -(-kernels // BLOCK)


@torch.inference_mode()
def render_block(representation: Representation, layer: int, block: int) -> Tensor:
    """Kernels block * BLOCK and the following of one layer, in the layer's dtype: (at most BLOCK, *size)."""
    first = block * BLOCK
    count = min(BLOCK, representation.layers[layer].kernels - first)
    row = torch.arange(BLOCK).clamp_max(count - 1)
    predicted = representation.predict(representation.coordinates.starts[layer] + first + row)[:count]
    return representation.kernels(layer, predicted).to(representation.layers[layer].dtype).contiguous()


def render_layer(representation: Representation, layer: int) -> Iterator[Tensor]:
    """All blocks of a layer, in order."""
    for block in range(blocks_of(representation.layers[layer].kernels)):
        yield render_block(representation, layer, block)
