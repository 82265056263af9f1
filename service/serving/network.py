"""The whole network as one safetensors file, which is rendered while it is read."""

import math
from collections.abc import Generator

from nern import tensorfile
from service.serving.predictors import Served


class NetworkFile:
    """A byte source: the state_dict of a network as a safetensors file.

    The file holds the rendered and the kept tensors, with the names, order, shapes and dtypes of the checkpoint.
    """

    media_type = "application/vnd.safetensors"

    def __init__(self, served: Served, etag: str) -> None:
        self.etag = etag
        self._served = served
        self._layer_index = {layer.name: index for index, layer in enumerate(served.layers)}
        tensors = []
        # Tied weights are written under each of their names, because the layout has no tensor of two names.
        self._stored_as = {name: name for name in served.artefact.names} | served.artefact.aliases
        for name, stored in self._stored_as.items():
            if stored in self._layer_index:
                layer = served.layers[self._layer_index[stored]]
                tensors.append((name, layer.dtype, layer.shape))
            else:
                entry = served.artefact.kept(stored)
                tensors.append((name, entry.dtype, entry.shape))
        self._header, self._entries = tensorfile.make_header(tensors, {"format": "pt"})
        self.nbytes = self._entries[-1].stop

    def read(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop. Blocks and kept tensors that the range does not cover are neither rendered nor read."""
        if start < min(stop, len(self._header)):
            yield self._header[start:stop]
        for entry in self._entries:
            # The range covers bytes first..last (half-open) of this tensor.
            first, last = max(start, entry.start) - entry.start, min(stop, entry.stop) - entry.start
            if first >= last:
                continue
            name = self._stored_as[entry.name]
            if name in self._layer_index:
                yield from self._rendered(self._layer_index[name], first, last)
            else:
                kept = self._served.artefact.kept(name)
                yield from self._served.stored(kept.start + first, kept.start + last)

    def _rendered(self, layer: int, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop of the tensor of a layer, block by block."""
        unit = self._served.artefact.representation.tiles.units[layer]
        kernel_nbytes = math.prod(unit.kernel_size) * unit.dtype.itemsize
        first, last = (self._served.block_of(layer, at // kernel_nbytes) for at in (start, stop - 1))
        for block in range(first, last + 1):
            offset = self._served.first_kernel(layer, block) * kernel_nbytes
            yield tensorfile.to_bytes(self._served.block(layer, block))[max(0, start - offset) : stop - offset]
