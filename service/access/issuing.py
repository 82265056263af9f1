"""Makes, rotates and revokes API keys."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from service.access import tokens
from service.store import keys
from service.store.database import now
from service.store.ids import new_id
from service.store.tables import ApiKey


def issue(
    session: Session, *, owner: str, scope: str, name: str = "", expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """Makes a key. Returns its row, and the key itself, which is stored nowhere."""
    key = tokens.make()
    row = ApiKey(
        id=new_id(),
        owner=owner,
        scope=scope,
        name=name,
        start=key[: tokens.SHOWN_CHARACTERS],
        hash=tokens.hash_of(key),
        created_at=now(session),
        expires_at=expires_at,
        last_used_at=None,
        revoked_at=None,
    )
    keys.add(session, row)
    return row, key


def rotate(session: Session, row: ApiKey, *, overlap: timedelta) -> tuple[ApiKey, str]:
    """Makes a key in place of another one, which stays valid for `overlap`. The new key has as much time as the old one had.

    Raises ValueError if the key has expired or was revoked.
    """
    moment = now(session)
    if keys.valid(session, row.hash, moment) is None:
        raise ValueError(f"key {row.id} is not valid any more; create a new one")
    lifetime = row.expires_at - row.created_at if row.expires_at else None
    made = issue(session, owner=row.owner, scope=row.scope, name=row.name, expires_at=moment + lifetime if lifetime else None)
    row.revoked_at = min(row.revoked_at or moment + overlap, moment + overlap)
    return made


def revoke(session: Session, row: ApiKey) -> None:
    """Ends a key now. A key that has been revoked stays so."""
    moment = now(session)
    row.revoked_at = min(row.revoked_at or moment, moment)
