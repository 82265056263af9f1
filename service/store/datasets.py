"""Queries about datasets. A deleted dataset stays as a row; no query here finds it."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store import shares
from service.store.owners import SHARED, shared_with
from service.store.pages import Page, newest_first
from service.store.tables import Dataset


def get(session: Session, id: str, *, lock: bool = False, shared: bool = False) -> Dataset | None:
    """The dataset of this id. With `lock`, no other transaction can lock or delete the row until this one ends.

    shared: it may be one that another owner shares with the owner of the session.
    """
    query = select(Dataset).where(Dataset.id == id, Dataset.deleted_at.is_(None))
    return session.scalar(query.with_for_update() if lock else query, execution_options=SHARED if shared else {})


def with_identity(session: Session, identity: str) -> Dataset | None:
    """The dataset of this identity: the hash of a file and a normalisation."""
    return session.scalar(select(Dataset).where(Dataset.identity == identity, Dataset.deleted_at.is_(None)))


def page(session: Session, *, shared: bool = False, limit: int, cursor: str | None) -> Page[Dataset]:
    """A page of datasets: those of the owner, or those that are shared with the owner."""
    query = select(Dataset).where(Dataset.deleted_at.is_(None))
    query = shared_with(session, query, Dataset) if shared else query
    return newest_first(session, query, Dataset.id, limit=limit, cursor=cursor)


def delete(session: Session, dataset: Dataset, now: datetime) -> None:
    """Marks the row as deleted. The caller deletes the blobs."""
    dataset.deleted_at = now
    session.add(dataset)
    shares.forget(session, dataset.id)
