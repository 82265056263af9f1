"""Queries about API keys. The keys of `NERN_API_KEYS` are not in the database."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from service.store.tables import ApiKey

# The latest use of a key is written at most so often.
USE_WRITTEN = timedelta(minutes=1)


def add(session: Session, key: ApiKey) -> None:
    """Stores a new key."""
    session.add(key)


def get(session: Session, id: str, *, owner: str | None) -> ApiKey | None:
    """The key of this id, if it is one of the owner. None for an owner: of any owner."""
    return session.scalar(select(ApiKey).where(ApiKey.id == id, _of(owner)))


def of_owner(session: Session, owner: str | None) -> Sequence[ApiKey]:
    """The keys of an owner, or of all owners: also those that have expired or were revoked. The newest comes first."""
    return session.scalars(select(ApiKey).where(_of(owner)).order_by(ApiKey.id.desc())).all()


def valid(session: Session, hash: str, now: datetime) -> ApiKey | None:
    """The key with this hash, unless it has expired or was revoked."""
    return session.scalar(select(ApiKey).where(ApiKey.hash == hash, _valid(now)))


def has_valid(session: Session, now: datetime) -> bool:
    """Whether there is a key that is valid."""
    return session.scalar(select(ApiKey.id).where(_valid(now)).limit(1)) is not None


def note_use(session: Session, id: str, now: datetime) -> None:
    """Writes down that a key was used."""
    session.execute(update(ApiKey).where(ApiKey.id == id).values(last_used_at=now))


def _of(owner: str | None) -> ColumnElement[bool]:
    return ApiKey.id.is_not(None) if owner is None else ApiKey.owner == owner


def _valid(now: datetime) -> ColumnElement[bool]:
    return and_(
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now), or_(ApiKey.revoked_at.is_(None), ApiKey.revoked_at > now)
    )
