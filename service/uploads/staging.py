"""Receiving a file: its bytes are counted, hashed and written to a folder as they arrive. The file is never held in memory."""

import base64
import hashlib
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from service import problems
from service.settings import Settings
from service.uploads.intake import Received
from service.uploads.multipart import FORM_BYTES, file_parts
from service.uploads.packing import packed

# This many bytes are collected before a thread hashes and writes them.
FLUSH_BYTES = 2**20

# A folder of this age belongs to an upload whose process was killed.
ABANDONED_SECONDS = 24 * 3600

# With less room in the data folder, the service takes no uploads.
MIN_FREE_BYTES = 64 * 2**20

# The most files that one form may have. The largest published checkpoints have a few hundred shards.
MAX_FILES = 1000


@asynccontextmanager
async def staged(request: Request, settings: Settings, filename: str, *, several: bool = False) -> AsyncIterator[Received]:
    """Receives the file in the body of a request: the whole body, or the part `file` of a multipart form.

    `filename` is the name of a file that is the whole body. If `several`, a form may have several parts `file`. A tar archive
    of them is received then. When the block ends, the file is removed from the staging folder. Raises Problem.
    """
    expected = _announced_digest(request)
    limit = settings.max_upload_bytes
    # A body that announces too many bytes is refused before it is read.
    if int(request.headers.get("content-length", 0)) > limit + FORM_BYTES:
        raise _too_large(limit)
    media_type = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        content = file_parts(request)
    elif media_type in ("application/octet-stream", "application/zip", "application/x-npz", "application/x-tar"):
        content = _named(filename, request.stream())
    else:
        raise problems.UnsupportedMediaType(
            f"this route does not read {media_type!r}; send multipart/form-data with a part `file`, or application/octet-stream"
        )
    settings.staging.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.staging) as name:
        folder = Path(name)
        first, *others = files = await _receive(content, folder, limit, most=MAX_FILES if several else 1)
        if empty := [file for file in files if not file.nbytes]:
            named = f"the file {empty[0].filename!r}" if others else "the file"
            raise problems.EmptyFile(f"{named} has no bytes; send a checkpoint or a dataset")
        if others and expected is not None:
            raise problems.BadRequest("Content-Digest is verified for one file; send several files without it")
        if expected is not None and expected != bytes.fromhex(first.sha256):
            raise problems.DigestMismatch(
                "the SHA-256 hash of the file differs from the one in Content-Digest; send the file again"
            )
        yield await run_in_threadpool(packed, files) if others else first


def clear_abandoned(settings: Settings) -> None:
    """Removes staging folders that are a day old. The processes of their uploads were killed."""
    for folder in settings.staging.glob("*"):
        if folder.stat().st_mtime < time.time() - ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def probe_room(settings: Settings) -> None:
    """Raises StorageFull if the data folder has hardly any room left."""
    if (free := shutil.disk_usage(settings.data_dir).free) < MIN_FREE_BYTES:
        raise problems.StorageFull(f"{settings.data_dir} has {free // 2**20} MiB left")


def clean_filename(name: str) -> str:
    """The last part of a path with slashes or backslashes, with printable characters only; "unnamed" if none is left."""
    return printable(re.split(r"[/\\]", name)[-1]) or "unnamed"


def printable(text: str) -> str:
    """The first 200 printable characters of a text."""
    return "".join(character for character in text if character.isprintable())[:200]


async def _named(filename: str, content: AsyncIterator[bytes]) -> AsyncIterator[str | bytes]:
    """A file that is a whole body, in the form that `file_parts` has."""
    yield filename
    async for piece in content:
        yield piece


async def _receive(content: AsyncIterator[str | bytes], folder: Path, limit: int, *, most: int) -> list[Received]:
    """Writes at most `most` files, of together at most `limit` bytes, to a folder. `content` is that of `file_parts`."""
    files: list[_File] = []
    total = 0
    try:
        async for received in content:
            if isinstance(received, str):
                if len(files) == most:
                    sent = "two parts `file`; send one file in each request" if most == 1 else f"more than {most} parts `file`"
                    raise problems.BadRequest(f"the form has {sent}")
                if files:
                    await run_in_threadpool(files[-1].close)
                files.append(_File(folder / f"upload-{len(files)}", clean_filename(received)))
                continue
            total += len(received)
            if total > limit:
                raise _too_large(limit)
            files[-1].buffer += received
            if len(files[-1].buffer) >= FLUSH_BYTES:
                await run_in_threadpool(files[-1].flush)
    finally:
        if files:
            await run_in_threadpool(files[-1].close)
    return [Received(file.path, folder, file.filename, file.nbytes, file.hash.hexdigest()) for file in files]


class _File:
    """A file that is being received."""

    def __init__(self, path: Path, filename: str) -> None:
        self.path = path
        self.filename = filename
        self.nbytes = 0
        self.hash = hashlib.sha256()
        self.buffer = bytearray()
        self._file = path.open("wb")

    def flush(self) -> None:
        """Hashes and writes what has been collected."""
        self.nbytes += len(self.buffer)
        self.hash.update(self.buffer)
        self._file.write(self.buffer)
        self.buffer.clear()

    def close(self) -> None:
        """Writes what is left, and closes the file."""
        with self._file:
            self.flush()


def _announced_digest(request: Request) -> bytes | None:
    """The SHA-256 hash in the header `Content-Digest` (RFC 9530), or None. Hashes of other algorithms are ignored.

    Raises BadRequest if the hash is malformed.
    """
    header = request.headers.get("content-digest")
    if header is None or "sha-256" not in header.lower():
        return None
    if not (found := re.search(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]*):", header)):
        raise problems.BadRequest("Content-Digest does not have the form sha-256=:BASE64:")
    try:
        digest = base64.b64decode(found[1], validate=True)
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise problems.BadRequest("the sha-256 value of Content-Digest is not 32 bytes in base64")
    return digest


def _too_large(limit: int) -> problems.TooLarge:
    return problems.TooLarge(f"the file is larger than {limit} bytes, the largest size that this service accepts", limit=limit)
