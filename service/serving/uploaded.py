"""The bytes of an uploaded file."""

from collections.abc import Generator
from dataclasses import dataclass

from service.store.blobs import Blobs


@dataclass(frozen=True)
class UploadedFile:
    """A file as it was uploaded, as a byte source."""

    blobs: Blobs
    key: str
    nbytes: int
    etag: str
    media_type: str = "application/octet-stream"

    def read(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Bytes start..stop. Raises Unreachable, FileNotFoundError."""
        return self.blobs.read(self.key, start, stop)
