"""Queries about who may read the things of an owner besides the owner."""

from collections.abc import Iterable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.store.tables import Share

# The reader that stands for every owner.
EVERYONE = "*"


def readers(session: Session, object_id: str) -> list[str]:
    """Who may read a thing besides its owner, in alphabetical order."""
    return list(session.scalars(select(Share.reader).where(Share.object_id == object_id).order_by(Share.reader)))


def put(session: Session, object_id: str, readers: Iterable[str]) -> None:
    """Shares a thing with these readers, and with no others."""
    forget(session, object_id)
    session.add_all(Share(object_id=object_id, reader=reader) for reader in sorted(set(readers)))


def forget(session: Session, object_id: str) -> None:
    """Shares a thing with nobody."""
    session.execute(delete(Share).where(Share.object_id == object_id))
