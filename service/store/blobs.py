"""The blob store: uploaded files, the tensors that were read out of them, parts of uploads in progress, snapshots of jobs.

The key of a blob holds the id of one row of the database. If the key were a hash of the content, two rows could share a blob,
and deleting one row would remove the bytes of the other.
"""

import asyncio
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from service.metrics.counted import BLOB_ERRORS

READ_BYTES = 2**20

# What an error of a folder on a full disk says (ENOSPC).
FULL = "No space left on device"

# The key of a blob that tells the blob store from an empty one, such as a folder where nothing is mounted.
MARK = "nern-blobs.txt"

# The bytes that a download asks for in one request.
PIECE_BYTES = 16 * 2**20

# How a request to a bucket is repeated. The deadline of one request is 30 s.
RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}

# The smallest part that S3 accepts in a multipart upload. Two parts are in memory at a time.
PART_BYTES = 5 * 2**20


@dataclass
class Folder:
    """What is below a key: how many blobs, their bytes, and when the newest was stored."""

    count: int
    nbytes: int
    newest: datetime


class Unreachable(Exception):
    """The blob store does not answer, or refuses an operation. A later attempt may succeed."""


class Full(Unreachable):
    """The blob store has no room left."""


class Missing(FileNotFoundError):
    """There is no blob of this key."""


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise Missing(str(error)) from error
    except BaseError as error:
        full = FULL in str(error)
        BLOB_ERRORS.labels("full" if full else "unreachable").inc()
        raise (Full if full else Unreachable)(str(error)) from error


class Blobs:
    """A folder or a bucket, by its URL (file:///… or s3://…). All methods raise Unreachable.

    A folder is made if `make` says so. If not, a missing folder is an error (FileNotFoundError): perhaps a file system is not
    mounted.
    """

    def __init__(self, url: str, *, make: bool = True) -> None:
        options: dict[str, Any] = {}
        self._folder: Path | None = None
        if url.startswith("file:"):
            self._folder = Path(url2pathname(urlsplit(url).path))
            options = {"mkdir": make}
            if not make and not self._folder.is_dir():
                raise FileNotFoundError(f"the blob folder {self._folder} does not exist; mount or make it")
        else:
            options = {"retry_config": RETRIES}
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

        Blocks while a piece arrives. Raises Missing.
        """
        if start < stop:
            with _reached():
                for piece in obstore.get(self._store, key, options={"range": (start, stop)}).stream(min_chunk_size=READ_BYTES):
                    yield bytes(piece)

    def download(self, key: str, path: Path) -> None:
        """Writes the content of a blob to the file `path`. Raises Missing.

        Each request asks for PIECE_BYTES, so that the deadline of a request does not limit the size of a blob.
        """
        with path.open("wb") as file, _reached():
            size = obstore.head(self._store, key)["size"]
            for start in range(0, size, PIECE_BYTES):
                file.write(obstore.get_range(self._store, key, start=start, end=min(start + PIECE_BYTES, size)))

    def upload(self, key: str, path: Path) -> None:
        """Like `put`, for a caller that is no coroutine."""
        with _reached():
            obstore.put(self._store, key, path, chunk_size=PART_BYTES, max_concurrency=2)

    def remove(self, key: str) -> None:
        """Like `delete`, for a caller that is no coroutine."""
        with suppress(Missing), _reached():
            obstore.delete(self._store, key)

    async def delete(self, key: str) -> None:
        """Removes a blob, if it exists."""
        with suppress(Missing), _reached():
            await obstore.delete_async(self._store, key)

    async def delete_folder(self, prefix: str) -> None:
        """Removes all blobs whose keys begin with `prefix` and a slash, and what a killed process has left unfinished there."""
        await asyncio.to_thread(self.remove_folder, prefix)

    def remove_folder(self, prefix: str) -> None:
        """Like `delete_folder`, for a caller that is no coroutine."""
        if self._folder:
            # A listing does not have unfinished blobs. Another process may remove the folder at the same time.
            try:
                with suppress(FileNotFoundError):
                    shutil.rmtree(self._folder / prefix)
            except OSError as error:
                raise Unreachable(str(error)) from error
            return
        with _reached():
            for found in obstore.list(self._store, prefix):
                for blob in found:
                    self.remove(blob["path"])

    def folders(self, prefix: str) -> dict[str, Folder]:
        """The blobs whose keys begin with `prefix` and a slash, by the next part of their keys."""
        found: dict[str, Folder] = {}
        with _reached():
            for page in obstore.list(self._store, prefix):
                for blob in page:
                    name = blob["path"].removeprefix(f"{prefix}/").partition("/")[0]
                    folder = found.setdefault(name, Folder(0, 0, blob["last_modified"]))
                    folder.count += 1
                    folder.nbytes += blob["size"]
                    folder.newest = max(folder.newest, blob["last_modified"])
        return found

    def mark(self, owner: str) -> None:
        """Marks the blob store as that of an owner."""
        with _reached():
            obstore.put(self._store, MARK, owner.encode(), use_multipart=False)

    @property
    def owner(self) -> str | None:
        """Whose the blob store is, by its mark. None without one, for example where nothing is mounted."""
        try:
            with _reached():
                return bytes(obstore.get(self._store, MARK).bytes()).decode()
        except Missing:
            return None

    def has(self, key: str) -> bool:
        """Whether there is a blob of this key."""
        try:
            with _reached():
                obstore.head(self._store, key)
        except Missing:
            return False
        return True


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


def snapshot_folder(job_id: str) -> str:
    """What the keys of all snapshots of a job begin with."""
    return f"snapshots/{job_id}"


def snapshot(job_id: str, fence: int, step: int) -> str:
    """The key of a snapshot, a safetensors file."""
    return f"{snapshot_folder(job_id)}/{fence}-{step}.safetensors"
