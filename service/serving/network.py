"""The whole network as one safetensors file that is made as it is read."""

import math
from collections.abc import Generator

from nern import tensorfile
from service.serving.predictors import Served


class NetworkFile:
    """The state_dict of a predictor, as a byte source: rebuilt and kept tensors, with their names, order, shapes and dtypes."""

    media_type = "application/vnd.safetensors"

    def __init__(self, served: Served, etag: str) -> None:
        self.etag = etag
        self._served = served
        self._number = {layer.name: number for number, layer in enumerate(served.layers)}
        tensors = []
        for name in served.artefact.names:
            if name in self._number:
                layer = served.layers[self._number[name]]
                tensors.append((name, layer.dtype, layer.shape))
            else:
                entry = served.artefact.kept(name)
                tensors.append((name, entry.dtype, entry.shape))
        self._header, self._entries = tensorfile.make_header(tensors, {"format": "pt"})
        self.nbytes = self._entries[-1].stop

    def read(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Bytes start..stop. Only blocks and kept tensors that the range covers are rendered and read, each in its turn."""
        if start < min(stop, len(self._header)):
            yield self._header[start:stop]
        for entry in self._entries:
            # Of the tensor, the range covers bytes first..last.
            first, last = max(start, entry.start) - entry.start, min(stop, entry.stop) - entry.start
            if first >= last:
                continue
            if entry.name in self._number:
                yield from self._rendered(self._number[entry.name], first, last)
            else:
                kept = self._served.artefact.kept(entry.name)
                yield from self._served.stored(kept.start + first, kept.start + last)

    def _rendered(self, number: int, start: int, stop: int) -> Generator[bytes, None, None]:
        layer = self._served.layers[number]
        kernel_nbytes = math.prod(layer.kernel_size) * layer.dtype.itemsize
        first, last = (self._served.block_of(number, at // kernel_nbytes) for at in (start, stop - 1))
        for block in range(first, last + 1):
            offset = self._served.first_kernel(number, block) * kernel_nbytes
            yield tensorfile.to_bytes(self._served.block(number, block))[max(0, start - offset) : stop - offset]
