"""The tensors of a rebuilt network as bytes, rendered while they are read."""

import math
from collections.abc import Generator

import torch

from nern import tensorfile
from service.serving.predictors import Served


class Tensors:
    """The tensors of a rebuilt network: names, dtypes and shapes in `described`, in the order of the checkpoint.

    Tied weights have each of their names.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._layer_index = {layer.name: index for index, layer in enumerate(served.layers)}
        self._stored_as = {name: name for name in served.artefact.names} | served.artefact.aliases
        self.described: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        for name, stored in self._stored_as.items():
            if stored in self._layer_index:
                layer = served.layers[self._layer_index[stored]]
                self.described[name] = layer.dtype, layer.shape
            else:
                entry = served.artefact.kept(stored)
                self.described[name] = entry.dtype, entry.shape

    def read(self, name: str, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop of a tensor. Blocks that the range does not cover are not rendered."""
        stored = self._stored_as[name]
        if stored in self._layer_index:
            yield from self._rendered(self._layer_index[stored], start, stop)
        else:
            kept = self._served.artefact.kept(stored)
            yield from self._served.stored(kept.start + start, kept.start + stop)

    def widened(self, name: str) -> bytes:
        """The bytes of a floating-point tensor in float32."""
        dtype, shape = self.described[name]
        content = b"".join(self.read(name, 0, tensorfile.nbytes_of(dtype, shape)))
        return tensorfile.to_bytes(tensorfile.from_bytes(content, dtype, shape).float())

    def _rendered(self, layer: int, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop of the tensor of a layer, block by block."""
        unit = self._served.artefact.representation.tiles.units[layer]
        kernel_nbytes = math.prod(unit.kernel_size) * unit.dtype.itemsize
        first, last = (self._served.block_of(layer, at // kernel_nbytes) for at in (start, stop - 1))
        for block in range(first, last + 1):
            offset = self._served.first_kernel(layer, block) * kernel_nbytes
            yield tensorfile.to_bytes(self._served.block(layer, block))[max(0, start - offset) : stop - offset]
