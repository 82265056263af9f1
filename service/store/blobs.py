"""Files too large for the database: uploads and what was read out of them. Keys belong to one row each.

A key holds the row's id rather than the content's hash, so that deleting one row never takes away another row's bytes.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import GenericError
from obstore.store import ObjectStore, from_url

READ_BYTES = 2**20

# The smallest part that S3 takes; two are in memory at a time.
PART_BYTES = 5 * 2**20


class Unreachable(Exception):
    """The blob store does not do what it was asked for; it may do so later."""


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except GenericError as error:
        raise Unreachable(str(error)) from error


class Blobs:
    """A folder or a bucket, by URL. All but `probe` raise Unreachable."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {"mkdir": True} if url.startswith("file:") else {}
        self._store: ObjectStore = from_url(url, **options)

    async def put(self, key: str, path: Path) -> None:
        """Stores a file's content; it appears under its key whole or not at all."""
        with _reached():
            await obstore.put_async(self._store, key, path, chunk_size=PART_BYTES, max_concurrency=2)

    def read(self, key: str, start: int, stop: int) -> Generator[bytes, None, None]:
        """Bytes start..stop of a blob in pieces of about a mebibyte; blocks while they arrive. Raises FileNotFoundError."""
        if start < stop:
            with _reached():
                for piece in obstore.get(self._store, key, options={"range": (start, stop)}).stream(min_chunk_size=READ_BYTES):
                    yield bytes(piece)

    def download(self, key: str, path: Path) -> None:
        """Writes a blob's content to a file. Raises FileNotFoundError."""
        with path.open("wb") as file, _reached():
            for piece in obstore.get(self._store, key).stream(min_chunk_size=READ_BYTES):
                file.write(piece)

    async def delete(self, key: str) -> None:
        """Removes a blob, if it is there."""
        with suppress(FileNotFoundError), _reached():
            await obstore.delete_async(self._store, key)

    async def probe(self) -> None:
        """Raises if the store can't be reached."""
        async for _ in obstore.list(self._store, chunk_size=1):
            break


def checkpoint_file(id: str) -> str:
    """Key of a checkpoint as it was uploaded."""
    return f"checkpoints/{id}/original"


def checkpoint_tensors(id: str) -> str:
    """Key of the safetensors file that was read out of a checkpoint."""
    return f"checkpoints/{id}/tensors.safetensors"


def dataset_tensors(id: str) -> str:
    """Key of the safetensors file with a dataset's `images` and `labels`."""
    return f"datasets/{id}/tensors.safetensors"
