"""The whole network as one safetensors file, which is rendered while it is read."""

from collections.abc import Generator

from nern import tensorfile
from service.serving.tensors import Tensors


class NetworkFile:
    """A byte source: the state_dict of a network as a safetensors file.

    The file holds the rendered and the kept tensors, with the names, order, shapes and dtypes of the checkpoint.
    """

    media_type = "application/vnd.safetensors"

    def __init__(self, tensors: Tensors, etag: str) -> None:
        self.etag = etag
        self._tensors = tensors
        described = ((name, dtype, shape) for name, (dtype, shape) in tensors.described.items())
        self._header, self._entries = tensorfile.make_header(described, {"format": "pt"})
        self.nbytes = self._entries[-1].stop

    def read(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop. Blocks and kept tensors that the range does not cover are neither rendered nor read."""
        if start < min(stop, len(self._header)):
            yield self._header[start:stop]
        for entry in self._entries:
            # The range covers bytes first..last (half-open) of this tensor.
            first, last = max(start, entry.start) - entry.start, min(stop, entry.stop) - entry.start
            if first < last:
                yield from self._tensors.read(entry.name, first, last)
