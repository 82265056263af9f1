"""The headers of the protocol tus 1.0 for resumable uploads (https://tus.io/protocols/resumable-upload)."""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import format_datetime

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.uploads.parts import Checksum

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination"
CHECKSUMS = ("sha1", "sha256")
MEDIA_TYPE = "application/offset+octet-stream"

# No file is as long as a number of this many digits.
MAX_DIGITS = 18


class TusMiddleware:
    """ASGI middleware for the paths at and below `prefix`.

    `X-HTTP-Method-Override` takes the place of the method. A request passes this middleware before the one that finds policies,
    so the policy is that of the method that is carried out. Every answer names the version of the protocol. No answer may be
    cached.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not f"{scope['path']}/".startswith(f"{self._prefix}/"):
            await self.app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Tus-Resumable"] = VERSION
                headers["Cache-Control"] = "no-store"
            await send(message)

        method = Headers(scope=scope).get("x-http-method-override")
        await self.app({**scope, "method": method.strip().upper()} if method else scope, receive, marked)


def require_version(request: Request) -> None:
    """Raises UnsupportedVersion unless the client speaks the version of the protocol that the service speaks."""
    if (sent := request.headers.get("tus-resumable")) != VERSION:
        said = f"the request has Tus-Resumable: {sent}" if sent else "the request has no header Tus-Resumable"
        raise problems.UnsupportedVersion(f"{said}; this service speaks {VERSION}", headers={"Tus-Version": VERSION})


def require_media_type(request: Request) -> None:
    """Raises UnsupportedMediaType unless the body is declared as bytes of an upload."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise problems.UnsupportedMediaType(f"this route reads bodies of Content-Type {MEDIA_TYPE} only")


def number(request: Request, name: str) -> int | None:
    """The number of bytes in a header, or None if there is no such header. Raises BadRequest."""
    if (text := request.headers.get(name)) is None:
        return None
    if not re.fullmatch(rf"[0-9]{{1,{MAX_DIGITS}}}", text):
        raise problems.BadRequest(f"the header {name} must be a number of bytes, and is {text[:50]!r}")
    return int(text)


def metadata(header: str) -> dict[str, str]:
    """The pairs in a header `Upload-Metadata`: keys, each with a value in base64 or without a value. Raises BadRequest."""
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in header.split(","))):
        key, _, value = pair.partition(" ")
        if key in found:
            raise problems.BadRequest(f"Upload-Metadata has the key {key!r} twice")
        try:
            found[key] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise problems.BadRequest(f"the value of {key!r} in Upload-Metadata is not UTF-8 text in base64") from None
    return found


def checksum(headers: Mapping[str, str]) -> Checksum | None:
    """The hash in the header `Upload-Checksum`, or None. Raises BadRequest."""
    if (text := headers.get("upload-checksum")) is None:
        return None
    algorithm, _, value = text.strip().partition(" ")
    if algorithm not in CHECKSUMS:
        raise problems.BadRequest(f"Upload-Checksum has the algorithm {algorithm[:20]!r}; use {' or '.join(CHECKSUMS)}")
    try:
        return Checksum(algorithm, base64.b64decode(value.strip(), validate=True))
    except binascii.Error:
        raise problems.BadRequest("the hash in Upload-Checksum is not in base64") from None


def date(time: datetime) -> str:
    """A time as headers of HTTP have it."""
    return format_datetime(time, usegmt=True)
