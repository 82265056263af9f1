"""Queries about what is stored, and what has been kept for long enough."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, delete, exists, func, or_, select
from sqlalchemy.orm import Session

from service.store.job_states import FINAL
from service.store.tables import Checkpoint, Dataset, Job, JobEvent, JobSnapshot, Predictor, Upload

KINDS = ("checkpoints", "datasets", "snapshots", "uploads")
"""What keys of blobs begin with. The id of a row follows."""

# Ids in one query.
QUERIED_IDS = 500


def failed_jobs(session: Session, *, limit: datetime, after: str, count: int) -> list[str]:
    """Ids of jobs without a predictor that ended before `limit`."""
    without = ~exists().where(Predictor.job_id == Job.id)
    return _ids(session, select(Job.id).where(Job.state.in_(FINAL), Job.finished_at < limit, without), after, count)


def with_snapshots(session: Session, *, limit: datetime, after: str, count: int) -> list[str]:
    """Ids of jobs that ended before `limit` and have snapshots."""
    has = exists().where(JobSnapshot.job_id == Job.id)
    return _ids(session, select(Job.id).where(Job.state.in_(FINAL), Job.finished_at < limit, has), after, count)


def with_events(session: Session, *, limit: datetime, after: str, count: int) -> list[str]:
    """Ids of jobs that ended before `limit` and have events."""
    has = exists().where(JobEvent.job_id == Job.id)
    return _ids(session, select(Job.id).where(Job.state.in_(FINAL), Job.finished_at < limit, has), after, count)


def still_over(session: Session, ids: Sequence[str]) -> list[str]:
    """Those of the jobs that are over. Their rows are locked, so that no client can retry them before the transaction ends."""
    over = select(Job.id).where(Job.id.in_(ids), Job.state.in_(FINAL))
    return list(session.scalars(over.with_for_update()))


def count_events(session: Session, ids: Sequence[str]) -> int:
    """The number of events of some jobs."""
    return session.scalar(select(func.count()).select_from(JobEvent).where(JobEvent.job_id.in_(ids))) or 0


def remove_events(session: Session, ids: Sequence[str]) -> int:
    """Removes the events of some jobs. Returns how many there were."""
    result = session.execute(delete(JobEvent).where(JobEvent.job_id.in_(ids)))
    assert isinstance(result, CursorResult)
    return result.rowcount


def known(session: Session, kind: str, ids: Iterable[str]) -> set[str]:
    """Those of the ids whose blobs of a kind are needed."""
    column, needed = _NEEDED[kind]
    listed, found = list(ids), set[str]()
    for start in range(0, len(listed), QUERIED_IDS):
        found |= set(session.scalars(select(column).where(column.in_(listed[start : start + QUERIED_IDS]), needed)))
    return found


# For each kind: the id of the row that a blob belongs to, and the condition that the row needs its blobs. A job that is not
# over may store a snapshot at any time.
_NEEDED: dict[str, tuple[Any, ColumnElement[bool]]] = {
    "checkpoints": (Checkpoint.id, Checkpoint.deleted_at.is_(None)),
    "datasets": (Dataset.id, Dataset.deleted_at.is_(None)),
    "snapshots": (Job.id, or_(Job.state.not_in(FINAL), exists().where(JobSnapshot.job_id == Job.id))),
    "uploads": (Upload.id, Upload.id.is_not(None)),
}


def usage(session: Session) -> dict[str, tuple[int, int]]:
    """For each kind of thing that is stored: how many there are, and their size in bytes."""
    totals: dict[str, Any] = {
        "checkpoints": select(func.count(), func.sum(Checkpoint.size)).where(Checkpoint.deleted_at.is_(None)),
        "datasets": select(func.count(), func.sum(Dataset.size)).where(Dataset.deleted_at.is_(None)),
        "predictors": select(func.count(), func.sum(Predictor.size)),
        "snapshots": select(func.count(), func.sum(JobSnapshot.size)).join(Job, Job.id == JobSnapshot.job_id),
        "uploads": select(func.count(), func.sum(Upload.offset)),
        "jobs": select(func.count(Job.id)),
        "events": select(func.count(JobEvent.number)).join(Job, Job.id == JobEvent.job_id),
    }
    found = {kind: session.execute(query).one() for kind, query in totals.items()}
    return {kind: (row[0], int(row[1] or 0) if len(row) > 1 else 0) for kind, row in found.items()}


def stored(session: Session) -> int:
    """The bytes of checkpoints, datasets, predictors, and of uploads that have not become one of these."""
    totals = (
        select(func.sum(Checkpoint.size)).where(Checkpoint.deleted_at.is_(None)),
        select(func.sum(Dataset.size)).where(Dataset.deleted_at.is_(None)),
        select(func.sum(Predictor.size)),
        select(func.sum(Upload.offset)).where(Upload.state == "receiving"),
    )
    return sum(int(session.scalar(total) or 0) for total in totals)


def by_owner(session: Session) -> dict[str, int]:
    """For each owner, the bytes of its checkpoints, datasets, predictors and uploads."""
    found: dict[str, int] = {}
    for owner, size, needed in (
        (Checkpoint.owner, Checkpoint.size, Checkpoint.deleted_at.is_(None)),
        (Dataset.owner, Dataset.size, Dataset.deleted_at.is_(None)),
        (Predictor.owner, Predictor.size, Predictor.id.is_not(None)),
        (Upload.owner, Upload.offset, Upload.id.is_not(None)),
    ):
        for name, total in session.execute(select(owner, func.sum(size)).where(needed).group_by(owner)):
            found[name] = found.get(name, 0) + int(total)
    return dict(sorted(found.items()))


def _ids(session: Session, query: Any, after: str, count: int) -> list[str]:
    return list(session.scalars(query.where(Job.id > after).order_by(Job.id).limit(count)))
