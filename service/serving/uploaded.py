"""An uploaded file, read from the blob store."""

from collections.abc import Generator
from dataclasses import dataclass

from service.store.blobs import Blobs


@dataclass(frozen=True)
class UploadedFile:
    """A byte source: an uploaded file, by the key of its blob."""

    blobs: Blobs
    key: str
    nbytes: int
    etag: str
    media_type: str = "application/octet-stream"

    def read(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop. Raises Unreachable and FileNotFoundError."""
        return self.blobs.read(self.key, start, stop)
