"""Queries about uploaded images."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.pages import Page, newest_first
from service.store.tables import Dataset


def get(session: Session, id: str, *, lock: bool = False) -> Dataset | None:
    """The row; with `lock` nobody else can use or delete it until the transaction ends."""
    query = select(Dataset).where(Dataset.id == id, Dataset.deleted_at.is_(None))
    return session.scalar(query.with_for_update() if lock else query)


def with_identity(session: Session, identity: str) -> Dataset | None:
    return session.scalar(select(Dataset).where(Dataset.identity == identity, Dataset.deleted_at.is_(None)))


def page(session: Session, *, limit: int, cursor: str | None) -> Page[Dataset]:
    query = select(Dataset).where(Dataset.deleted_at.is_(None))
    return newest_first(session, query, Dataset.id, limit=limit, cursor=cursor)


def delete(session: Session, dataset: Dataset, now: datetime) -> None:
    dataset.deleted_at = now
    session.add(dataset)
