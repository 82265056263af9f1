"""Requests of the protocol tus, as a client sends them."""

import base64
import hashlib
from typing import Any

import httpx

RESUMABLE = {"Tus-Resumable": "1.0.0"}
BYTES = {"Content-Type": "application/offset+octet-stream"}


def metadata(**values: str) -> str:
    """The value of a header `Upload-Metadata`."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def checksum(content: bytes, algorithm: str = "sha1") -> dict[str, str]:
    """The header `Upload-Checksum` of a body."""
    return {"Upload-Checksum": f"{algorithm} {base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"}


def create(
    client: httpx.Client, length: int | None, kind: str = "checkpoint", content: bytes | None = None, **more: Any
) -> httpx.Response:
    """Creates an upload of `length` bytes. With `content`, the request has the first bytes of the file."""
    headers: dict[str, str] = {**RESUMABLE, "Upload-Metadata": metadata(kind=kind, filename="net.pt", **more.pop("values", {}))}
    headers |= {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
    headers |= {} if content is None else BYTES
    return client.post("/v1/uploads", headers=headers | more.pop("headers", {}), content=content, **more)


def begin(client: httpx.Client, length: int, kind: str = "checkpoint", **more: Any) -> str:
    """Creates an upload. Returns its address."""
    answer = create(client, length, kind, **more)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


def patch(client: httpx.Client, address: str, offset: int, content: Any, **headers: str) -> httpx.Response:
    """Sends bytes of an upload."""
    return client.patch(address, headers={**RESUMABLE, **BYTES, "Upload-Offset": str(offset), **headers}, content=content)


def head(client: httpx.Client, address: str) -> httpx.Response:
    """Asks for the offset of an upload."""
    return client.head(address, headers=RESUMABLE)


def offset(client: httpx.Client, address: str) -> int:
    """The offset of an upload."""
    answer = head(client, address)
    assert answer.status_code == 200, answer.status_code
    return int(answer.headers["upload-offset"])
