"""API keys. Each key has a scope: read, write or admin. On a loopback address the service also runs without keys."""

import hmac
import ipaddress
from collections.abc import Mapping
from typing import get_args

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems
from service.http.errors import respond
from service.http.policy import KeyScope, policy_of

# In this order: each scope includes the scopes before it.
SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)


def parse_keys(text: str) -> dict[str, KeyScope]:
    """Parses `read:KEY,write:KEY,…` into a dictionary from each key to its scope. Raises ValueError for any other text."""
    keys: dict[str, KeyScope] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, key = part.partition(":")
        scope = next((scope for scope in SCOPES if scope == name), None)
        if scope is None or len(key) < 16:
            raise ValueError(
                "NERN_API_KEYS must be a comma-separated list of scope:key; a scope is read, write or admin, "
                "and a key has 16 characters or more"
            )
        keys[key] = scope
    return keys


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on the address `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ApiKeys:
    """ASGI middleware that requires an API key as a bearer token (RFC 6750) of the scope that the route declares.

    Without keys, every request passes.
    """

    def __init__(self, app: ASGIApp, keys: Mapping[str, KeyScope]) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.keys or (wanted := policy_of(scope).access) == "open":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        problem = self._refusal(request, wanted)
        await (respond(request, problem) if problem else self.app)(scope, receive, send)

    def _refusal(self, request: Request, wanted: KeyScope) -> problems.Problem | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        given = next((scope for key, scope in self.keys.items() if hmac.compare_digest(key.encode(), token.encode())), None)
        if kind.lower() != "bearer" or given is None:
            detail = "the request has no valid API key; send Authorization: Bearer KEY"
            return problems.Unauthorized(detail, headers={"WWW-Authenticate": "Bearer"})
        if SCOPES.index(given) < SCOPES.index(wanted):
            return problems.Forbidden(
                f"this request needs an API key of scope {wanted}; the key that was sent has scope {given}"
            )
        return None
