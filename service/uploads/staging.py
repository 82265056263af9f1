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
from urllib.parse import unquote

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from service import problems
from service.settings import Settings
from service.uploads.intake import Received
from service.uploads.multipart import file_part

# This many bytes are collected before a thread hashes and writes them.
FLUSH_BYTES = 2**20

# The most that a multipart form adds to the bytes of its file. A longer Content-Length is refused before the body is read.
FORM_BYTES = 2**20

# A folder of this age belongs to an upload whose process was killed.
ABANDONED_SECONDS = 24 * 3600


@asynccontextmanager
async def staged(request: Request, settings: Settings, filename: str) -> AsyncIterator[Received]:
    """Receives the file in the body of a request: the whole body, or the part `file` of a multipart form.

    `filename` is the name of a file that is the whole body. When the block ends, the file is removed from the staging folder.
    Raises Problem.
    """
    expected = _announced_digest(request)
    limit = settings.max_upload_bytes
    if int(request.headers.get("content-length", 0)) > limit + FORM_BYTES:
        raise _too_large(limit)
    media_type = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        quoted, content = await file_part(request)
        # Browsers write some characters of the name as %XX in this header.
        filename = unquote(quoted)
    elif media_type in ("application/octet-stream", "application/zip", "application/x-npz"):
        content = request.stream()
    else:
        raise problems.UnsupportedMediaType(
            f"this route does not read {media_type!r}; send multipart/form-data with a part `file`, or application/octet-stream"
        )
    settings.staging.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.staging) as name:
        folder = Path(name)
        nbytes, digest = await _receive(content, folder / "upload", limit)
        if nbytes == 0:
            raise problems.EmptyFile("the file has no bytes; send a checkpoint or a dataset")
        if expected is not None and expected != digest:
            raise problems.DigestMismatch(
                "the SHA-256 hash of the file differs from the one in Content-Digest; send the file again"
            )
        yield Received(folder / "upload", folder, clean_filename(filename), nbytes, digest.hex())


def clear_abandoned(settings: Settings) -> None:
    """Removes staging folders that are a day old. The processes of their uploads were killed."""
    for folder in settings.staging.glob("*"):
        if folder.stat().st_mtime < time.time() - ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def clean_filename(name: str) -> str:
    """The last part of a path with slashes or backslashes, with printable characters only; "unnamed" if none is left."""
    return printable(re.split(r"[/\\]", name)[-1]) or "unnamed"


def printable(text: str) -> str:
    """The first 200 printable characters of a text."""
    return "".join(character for character in text if character.isprintable())[:200]


async def _receive(content: AsyncIterator[bytes], path: Path, limit: int) -> tuple[int, bytes]:
    hash, nbytes, buffer = hashlib.sha256(), 0, bytearray()
    with path.open("wb") as file:

        def flush() -> None:
            hash.update(buffer)
            file.write(buffer)
            buffer.clear()

        async for received in content:
            nbytes += len(received)
            if nbytes > limit:
                raise _too_large(limit)
            buffer += received
            if len(buffer) >= FLUSH_BYTES:
                await run_in_threadpool(flush)
        await run_in_threadpool(flush)
    return nbytes, hash.digest()


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
