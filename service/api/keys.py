"""The routes of API keys."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from service import problems
from service.access.issuing import issue, revoke, rotate
from service.access.keys import caller_of
from service.api.context import Reading, Writing
from service.http.openapi import raises
from service.http.policy import KeyScope, policy
from service.store import keys
from service.store.database import now
from service.store.owners import NAME
from service.store.tables import ApiKey

router = APIRouter(prefix="/v1/keys", tags=["keys"])

OwnerName = Annotated[str, Field(pattern=f"{NAME.pattern}|^$", description="Up to 63 small letters, digits and hyphens")]


class KeyOut(BaseModel):
    """An API key, without the key itself."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    owner: str = Field(description="Whose things the key opens. Empty for a key of the service itself")
    scope: KeyScope
    name: str
    start: str = Field(description="The first characters of the key, by which people tell their keys apart")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="A recent use, at most a minute before the latest one")
    revoked_at: datetime | None = Field(description="From then on the key is not valid; after a rotation, this may lie ahead")


class NewKeyOut(KeyOut):
    """A new API key. No later answer has the key itself."""

    key: str


class KeyRequest(BaseModel):
    """What a new key opens, and for how long."""

    model_config = ConfigDict(extra="forbid")

    scope: KeyScope
    owner: OwnerName | None = Field(None, description="Default: the owner of the key that sends the request")
    name: str = Field("", max_length=200, description="What the key is for")
    expires_at: AwareDatetime | None = Field(None, description="When the key ends. Default: never")


class Rotation(BaseModel):
    """How a key is replaced."""

    model_config = ConfigDict(extra="forbid")

    overlap_hours: float = Field(24.0, strict=True, ge=0, le=24 * 365, description="Hours for which the old key stays valid")


@router.post("", status_code=201)
@policy("admin")
def create_key(body: KeyRequest, request: Request, response: Response, session: Writing) -> NewKeyOut:
    """Creates an API key. The answer has the key itself, this once.

    A key of an owner creates keys of the same owner. A key of the service itself (without an owner) creates keys of any owner.
    """
    mine = caller_of(request.scope).owner
    owner = mine if body.owner is None else body.owner
    if mine not in ("", owner):
        raise problems.Forbidden(f"a key of the owner {mine!r} can't create keys of the owner {owner!r}")
    expires_at = _in_utc(body.expires_at) if body.expires_at else None
    if expires_at and expires_at <= now(session):
        raise _invalid_expiry("expires_at must lie ahead")
    row, key = issue(session, owner=owner, scope=body.scope, name=body.name, expires_at=expires_at)
    response.headers["Location"] = f"{router.prefix}/{row.id}"
    return _with_key(row, key)


@router.get("")
@policy("admin")
def list_keys(request: Request, session: Reading) -> list[KeyOut]:
    """Lists the API keys of the owner, newest first; for a key of the service itself, those of all owners.

    The keys of the setting `NERN_API_KEYS` are not among them.
    """
    return [KeyOut.model_validate(row) for row in keys.of_owner(session, _whose(request))]


@router.get("/{id}")
@policy("admin")
def show_key(id: str, request: Request, session: Reading) -> KeyOut:
    """Shows an API key."""
    return KeyOut.model_validate(_find(session, id, request))


@router.post("/{id}/rotate", status_code=201)
@policy("admin")
@raises(problems.Impossible)
def rotate_key(id: str, request: Request, response: Response, session: Writing, body: Rotation | None = None) -> NewKeyOut:
    """Creates a key in place of this one, which stays valid for `overlap_hours`. The answer has the new key, this once.

    The answer is 409 for a key that has expired or was revoked.
    """
    overlap = timedelta(hours=(body or Rotation()).overlap_hours)
    try:
        row, key = rotate(session, _find(session, id, request), overlap=overlap)
    except ValueError as error:
        raise problems.Impossible(str(error)) from error
    response.headers["Location"] = f"{router.prefix}/{row.id}"
    return _with_key(row, key)


@router.delete("/{id}", status_code=204, response_class=Response)
@policy("admin")
def revoke_key(id: str, request: Request, session: Writing) -> None:
    """Revokes an API key at once. The key stays in the list."""
    revoke(session, _find(session, id, request))


def _in_utc(time: datetime) -> datetime:
    """The same time in UTC. Raises Invalid for a time before the year 1 or after 9999."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise _invalid_expiry("expires_at must lie in the years 1 to 9999 of UTC") from None


def _invalid_expiry(detail: str) -> problems.Invalid:
    return problems.Invalid(detail, errors=[{"pointer": "/expires_at", "detail": detail}])


def _whose(request: Request) -> str | None:
    """The owner whose keys the sender may see, or None for all owners."""
    return caller_of(request.scope).owner or None


def _find(session: Session, id: str, request: Request) -> ApiKey:
    if (row := keys.get(session, id, owner=_whose(request))) is None:
        raise problems.NotFound(f"there is no key {id}")
    return row


def _with_key(row: ApiKey, key: str) -> NewKeyOut:
    return NewKeyOut(**KeyOut.model_validate(row).model_dump(), key=key)
