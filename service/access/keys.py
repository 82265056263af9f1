"""API keys: who may read, write, and administer. Optional on a loopback address, required on any other."""

import hmac
import ipaddress
from collections.abc import Mapping
from typing import Literal, get_args

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems
from service.http.errors import respond

KeyScope = Literal["read", "write", "admin"]

# A later scope includes the earlier ones.
SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)

OPEN = ("/livez", "/readyz", "/docs", "/openapi.json", "/problems")


def parse_keys(text: str) -> dict[str, KeyScope]:
    """`read:KEY,write:KEY,…` as scopes by key. Raises ValueError."""
    keys: dict[str, KeyScope] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, key = part.partition(":")
        scope = next((scope for scope in SCOPES if scope == name), None)
        if scope is None or len(key) < 16:
            raise ValueError(
                "NERN_API_KEYS is a comma list of scope:key, scopes read, write, admin, keys of 16 characters or more"
            )
        keys[key] = scope
    return keys


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def needed(method: str, path: str) -> KeyScope:
    """The scope that a request takes: reading is free of side effects, deleting is not to be undone."""
    if method in ("GET", "HEAD", "OPTIONS") or (method == "POST" and path.endswith("/kernels")):
        return "read"
    return "admin" if method == "DELETE" else "write"


class ApiKeys:
    """ASGI middleware: lets requests pass whose bearer token has the scope that they need (RFC 6750)."""

    def __init__(self, app: ASGIApp, keys: Mapping[str, KeyScope]) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.keys or scope["path"].startswith(OPEN):
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        problem = self._refusal(request)
        await (respond(request, problem) if problem else self.app)(scope, receive, send)

    def _refusal(self, request: Request) -> problems.Problem | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        given = next((scope for key, scope in self.keys.items() if hmac.compare_digest(key.encode(), token.encode())), None)
        if kind.lower() != "bearer" or given is None:
            return problems.Unauthorized("send Authorization: Bearer KEY", headers={"WWW-Authenticate": "Bearer"})
        wanted = needed(request.method, request.url.path)
        if SCOPES.index(given) < SCOPES.index(wanted):
            return problems.Forbidden(f"this takes a key of scope {wanted}; yours has {given}")
        return None
