"""The whole network as an ONNX file, which is rendered while it is read."""

from collections.abc import Generator, Iterable

import torch

from nern.graph.onnx_writer import Skeleton, layout
from nern.tensorfile import Entry
from service.serving.tensors import Tensors


class OnnxFile:
    """A byte source: a network as an ONNX file. The names of inputs, outputs and initialisers are those of the upload."""

    media_type = "application/octet-stream"

    def __init__(self, tensors: Tensors, skeleton: Skeleton, etag: str) -> None:
        self.etag = etag
        self._tensors = tensors
        self._layout = layout(skeleton.content, ((name, *self._described(name, skeleton)) for name in skeleton.names))
        self.nbytes = self._layout.nbytes

    def read(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop. Blocks and kept tensors that the range does not cover are neither rendered nor read."""
        yield from self._layout.read(start, stop, self._data)

    def _described(self, name: str, skeleton: Skeleton) -> tuple[torch.dtype, tuple[int, ...]]:
        dtype, shape = self._tensors.describe(name)
        return (torch.float32 if skeleton.widened and dtype.is_floating_point else dtype), shape

    def _data(self, entry: Entry, start: int, stop: int) -> Iterable[bytes]:
        if entry.dtype == self._tensors.describe(entry.name)[0]:
            return self._tensors.read(entry.name, start, stop)
        return [self._tensors.widened(entry.name)[start:stop]]
