"""The whole network as one safetensors file that is made as it is read."""

from collections.abc import Iterator

import torch

from nern import tensorfile
from service.serving.predictors import Served

# Kept tensors are copied from the database in pieces of this size.
PIECE = 2**20

# Kernels rendered at a time.
KERNELS = 1024


class NetworkFile:
    """The state_dict of a predictor: rebuilt and kept tensors with their original names, order, shapes and dtypes."""

    def __init__(self, served: Served) -> None:
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
        self.size = self._entries[-1].stop

    def content(self) -> Iterator[bytes]:
        """The file from start to end; blocks are rendered, and kept tensors read, when their turn comes."""
        yield self._header
        for entry in self._entries:
            if entry.name in self._number:
                yield from self._render(self._number[entry.name])
            else:
                yield from self._copy(entry.name)

    def _render(self, layer: int) -> Iterator[bytes]:
        for numbers in torch.arange(self._served.layers[layer].kernels).split(KERNELS):
            yield tensorfile.to_bytes(self._served.kernels(layer, numbers))

    def _copy(self, name: str) -> Iterator[bytes]:
        kept = self._served.artefact.kept(name)
        for start in range(kept.start, kept.stop, PIECE):
            yield self._served.read(start, min(start + PIECE, kept.stop))
