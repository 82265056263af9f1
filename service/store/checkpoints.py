"""Queries about checkpoints. A deleted checkpoint stays as a row; no query here finds it."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store import shares
from service.store.owners import SHARED, shared_with
from service.store.pages import Page, newest_first
from service.store.tables import Checkpoint


def get(session: Session, id: str, *, lock: bool = False, shared: bool = False) -> Checkpoint | None:
    """The checkpoint of this id. With `lock`, no other transaction can lock or delete the row until this one ends.

    shared: it may be one that another owner shares with the owner of the session.
    """
    query = select(Checkpoint).where(Checkpoint.id == id, Checkpoint.deleted_at.is_(None))
    return session.scalar(query.with_for_update() if lock else query, execution_options=SHARED if shared else {})


def with_hash(session: Session, sha256: str, key: str | None) -> Checkpoint | None:
    """The checkpoint of the state_dict at `key` in the file of this SHA-256 hash. None: of the one chosen without a key."""
    choice = Checkpoint.first.is_(True) if key is None else Checkpoint.key == key
    return session.scalar(select(Checkpoint).where(Checkpoint.sha256 == sha256, choice, Checkpoint.deleted_at.is_(None)))


def page(session: Session, *, shared: bool = False, limit: int, cursor: str | None) -> Page[Checkpoint]:
    """A page of checkpoints: those of the owner, or those that are shared with the owner."""
    query = select(Checkpoint).where(Checkpoint.deleted_at.is_(None))
    query = shared_with(session, query, Checkpoint) if shared else query
    return newest_first(session, query, Checkpoint.id, limit=limit, cursor=cursor)


def delete(session: Session, checkpoint: Checkpoint, now: datetime) -> None:
    """Marks the row as deleted. The caller deletes the blobs."""
    checkpoint.deleted_at = now
    session.add(checkpoint)
    shares.forget(session, checkpoint.id)
