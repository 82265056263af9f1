"""Who sends a request: the owner and the scope of an API key. On a loopback address the service also runs without keys."""

import hmac
import ipaddress
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import get_args

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems
from service.access import tokens
from service.http.errors import respond
from service.http.policy import KeyScope, policy_of
from service.logs import context
from service.store import keys
from service.store.database import Away, Database, now
from service.store.owners import NAME

log = logging.getLogger(__name__)

# In this order: each scope includes the scopes before it.
SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)

_IN_SCOPE = "nern.caller"


@dataclass(frozen=True)
class Caller:
    """The sender of a request: the owner whose things it may see, and the scope of its key."""

    owner: str
    scope: KeyScope


# Who sends a request without a key, if the service needs none; and who sends a request to an open route of a service that needs
# keys. No owner can have the name of the latter, so it sees nothing.
ANYBODY = Caller("", "admin")
NOBODY = Caller("?", "read")


def parse_keys(text: str) -> dict[str, Caller]:
    """Parses `read:KEY,write@OWNER:KEY,…` into a dictionary from each key to its caller. Raises ValueError for any other text.

    Without an owner, a key is one of the service itself (the owner "").
    """
    found: dict[str, Caller] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        who, _, key = part.partition(":")
        name, at, owner = who.partition("@")
        scope = scope_named(name)
        if scope is None or len(key) < 16 or bool(at) != bool(NAME.match(owner)):
            raise ValueError(
                "NERN_API_KEYS must be a comma-separated list of scope:key or scope@owner:key; a scope is read, write or "
                "admin, an owner has up to 63 small letters, digits and hyphens, and a key has 16 characters or more"
            )
        found[key] = Caller(owner, scope)
    return found


def scope_named(name: str) -> KeyScope | None:
    """The scope of a name, or None."""
    return next((scope for scope in SCOPES if scope == name), None)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on the address `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def caller_of(scope: Scope) -> Caller:
    """The sender of a request, whom `ApiKeys` has found."""
    found: Caller = scope[_IN_SCOPE]
    return found


class ApiKeys:
    """ASGI middleware that finds the sender of every request by its API key, a bearer token (RFC 6750).

    The key must have the scope that the route declares. `given` are the keys of the settings; other keys are in the database.
    Unless `required`, a request without a key passes.
    """

    def __init__(self, app: ASGIApp, given: Mapping[str, Caller], database: Database, *, required: bool) -> None:
        self.app = app
        self._given = given
        self._database = database
        self._required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        try:
            caller = scope[_IN_SCOPE] = await self._find(request)
        except problems.Problem as problem:
            await respond(request, problem)(scope, receive, send)
            return
        if caller is not NOBODY:
            context.add(owner=caller.owner)
        await self.app(scope, receive, send)

    async def _find(self, request: Request) -> Caller:
        """The sender of a request. Raises Unauthorized, Forbidden, and Unavailable if the database does not answer."""
        wanted = policy_of(request.scope).access
        if wanted == "open":
            return NOBODY if self._required else ANYBODY
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        if not kind and not self._required:
            return ANYBODY
        try:
            found = await self._caller(key) if kind.lower() == "bearer" else None
        except Away as error:
            raise problems.Unavailable("the database does not answer, so the API key can't be checked") from error
        if found is None:
            detail = "the request has no valid API key; send Authorization: Bearer KEY"
            raise problems.Unauthorized(detail, headers={"WWW-Authenticate": "Bearer"})
        if SCOPES.index(found.scope) < SCOPES.index(wanted):
            raise problems.Forbidden(
                f"this request needs an API key of scope {wanted}; the key that was sent has scope {found.scope}"
            )
        return found

    async def _caller(self, key: str) -> Caller | None:
        given = [caller for known, caller in self._given.items() if hmac.compare_digest(known.encode(), key.encode())]
        if given:
            return given[0]
        return await run_in_threadpool(self._look_up, key) if tokens.is_key(key) else None

    def _look_up(self, key: str) -> Caller | None:
        with self._database.read() as session:
            moment = now(session)
            row = keys.valid(session, tokens.hash_of(key), moment)
        if row is None or (scope := scope_named(row.scope)) is None:
            return None
        if row.last_used_at is None or row.last_used_at < moment - keys.USE_WRITTEN:
            # A database that takes no writes is no reason to refuse the request.
            with suppress(Away), self._database.write() as session:
                keys.note_use(session, row.id, moment)
        return Caller(row.owner, scope)
