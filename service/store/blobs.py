"""The blob store: uploaded files, the tensors that were read out of them, and the parts of uploads in progress.

The key of a blob holds the id of one row of the database. If the key were a hash of the content, two rows could share a blob,
and deleting one row would remove the bytes of the other.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import GenericError
from obstore.store import ObjectStore, from_url

READ_BYTES = 2**20

# The smallest part that S3 accepts in a multipart upload. Two parts are in memory at a time.
PART_BYTES = 5 * 2**20


class Unreachable(Exception):
    """The blob store does not answer, or refuses an operation. A later attempt may succeed."""


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except GenericError as error:
        raise Unreachable(str(error)) from error


class Blobs:
    """A folder or a bucket, by its URL (file:///… or s3://…). All methods but `probe` raise Unreachable."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {"mkdir": True} if url.startswith("file:") else {}
        self._store: ObjectStore = from_url(url, **options)

    async def put(self, key: str, path: Path) -> None:
        """Stores the content of the file `path`. The blob appears under its key with all of its bytes, or not at all."""
        with _reached():
            await obstore.put_async(self._store, key, path, chunk_size=PART_BYTES, max_concurrency=2)

    async def put_bytes(self, key: str, data: bytes) -> None:
        """Stores a few mebibytes. The blob appears under its key with all of its bytes, or not at all."""
        with _reached():
            await obstore.put_async(self._store, key, data, use_multipart=False)

    def read(self, key: str, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop (half-open) of a blob in pieces of about READ_BYTES.

        Blocks while a piece arrives. Raises FileNotFoundError.
        """
        if start < stop:
            with _reached():
                for piece in obstore.get(self._store, key, options={"range": (start, stop)}).stream(min_chunk_size=READ_BYTES):
                    yield bytes(piece)

    def download(self, key: str, path: Path) -> None:
        """Writes the content of a blob to the file `path`. Raises FileNotFoundError."""
        with path.open("wb") as file, _reached():
            for piece in obstore.get(self._store, key).stream(min_chunk_size=READ_BYTES):
                file.write(piece)

    async def delete(self, key: str) -> None:
        """Removes a blob, if it exists."""
        with suppress(FileNotFoundError), _reached():
            await obstore.delete_async(self._store, key)

    async def delete_folder(self, prefix: str) -> None:
        """Removes all blobs whose keys begin with `prefix` and a slash."""
        with _reached():
            async for found in obstore.list(self._store, prefix):
                for blob in found:
                    await self.delete(blob["path"])

    async def probe(self) -> None:
        """Raises an exception if the blob store does not answer."""
        async for _ in obstore.list(self._store, chunk_size=1):
            break


def checkpoint_file(id: str) -> str:
    """The key of the uploaded file of a checkpoint."""
    return f"checkpoints/{id}/original"


def checkpoint_tensors(id: str) -> str:
    """The key of the safetensors file with the tensors that were read out of a checkpoint."""
    return f"checkpoints/{id}/tensors.safetensors"


def dataset_tensors(id: str) -> str:
    """The key of the safetensors file with the tensors `images` and `labels` of a dataset."""
    return f"datasets/{id}/tensors.safetensors"


def upload_folder(id: str) -> str:
    """What the keys of all parts of an upload begin with."""
    return f"uploads/{id}"


def upload_part(id: str, blob: str) -> str:
    """The key of a part of an upload."""
    return f"{upload_folder(id)}/{blob}"
