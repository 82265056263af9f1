"""Receiving a file: from the socket to a folder, counted and hashed on the way, never held in memory."""

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

# So many bytes are hashed and written at a time, in one hop to a thread.
FLUSH_BYTES = 2**20

# What a form may add to its file before the length of the whole body says that the file is too large.
FORM_BYTES = 2**20

ABANDONED_SECONDS = 24 * 3600


@asynccontextmanager
async def staged(request: Request, settings: Settings, filename: str) -> AsyncIterator[Received]:
    """Receives the file in a request's body: the whole body, or the part `file` of a multipart form.

    Nothing of it stays in the staging folder afterwards. Raises Problem.
    """
    expected = _announced_digest(request)
    limit = settings.max_upload_bytes
    if int(request.headers.get("content-length", 0)) > limit + FORM_BYTES:
        raise _too_large(limit)
    media_type = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        quoted, content = await file_part(request)
        # Browsers write some characters of a file's name as %XX here.
        filename = unquote(quoted)
    elif media_type in ("application/octet-stream", "application/zip", "application/x-npz"):
        content = request.stream()
    else:
        raise problems.UnsupportedMediaType(
            f"{media_type!r} is not read here; send multipart/form-data with a part `file`, or application/octet-stream"
        )
    settings.staging.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.staging) as name:
        folder = Path(name)
        nbytes, digest = await _receive(content, folder / "upload", limit)
        if nbytes == 0:
            raise problems.EmptyFile("the file is empty; nothing arrived after the headers")
        if expected is not None and expected != digest:
            raise problems.DigestMismatch("the file's sha-256 is not the one that Content-Digest announced; send it again")
        yield Received(folder / "upload", folder, clean_filename(filename), nbytes, digest.hex())


def clear_abandoned(settings: Settings) -> None:
    """Removes what uploads left behind whose process was killed: folders that are a day old."""
    for folder in settings.staging.glob("*"):
        if folder.stat().st_mtime < time.time() - ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def clean_filename(name: str) -> str:
    """The last part of somebody's path, as `printable`."""
    return printable(re.split(r"[/\\]", name)[-1]) or "unnamed"


def printable(text: str) -> str:
    """Without control characters, at most 200 characters long."""
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
    """The sha-256 in `Content-Digest` (RFC 9530), if there is one. Other algorithms are ignored, as the RFC says."""
    header = request.headers.get("content-digest")
    if header is None or "sha-256" not in header.lower():
        return None
    if not (found := re.search(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]*):", header)):
        raise problems.BadRequest("Content-Digest is not of the form sha-256=:BASE64:")
    try:
        digest = base64.b64decode(found[1], validate=True)
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise problems.BadRequest("Content-Digest holds no sha-256 in base64")
    return digest


def _too_large(limit: int) -> problems.TooLarge:
    return problems.TooLarge(f"the file is larger than {limit} bytes, which is the most that is accepted here", limit=limit)
