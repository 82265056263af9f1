"""Queries about the workers that are alive."""

from datetime import datetime, timedelta

from sqlalchemy import and_, delete, select
from sqlalchemy.orm import Session

from service.store.tables import Job, Worker

# A worker writes its row every WRITTEN_SECONDS. It is no longer listed when it has not written for SILENT_SECONDS.
WRITTEN_SECONDS = 5.0
SILENT_SECONDS = 20.0

# Rows of workers that were killed stay for this time.
FORGOTTEN = timedelta(hours=1)


def write(session: Session, worker: Worker) -> None:
    """Adds or replaces the row of a worker, and removes rows of workers that have been silent for long."""
    session.merge(worker)
    session.execute(delete(Worker).where(Worker.seen_at < worker.seen_at - FORGOTTEN))


def record_end(session: Session, *, host: str, process: int, end: str) -> None:
    """Writes down how a worker has ended, as the end of a sentence about it. Does nothing for a worker that is not known."""
    for worker in session.scalars(select(Worker).where(Worker.ended.is_(None))):
        if (worker.about["host"], worker.about["process"]) == (host, process):
            worker.ended = end


def end_of(session: Session, id: str | None) -> str:
    """How a worker has ended, as the end of a sentence about it."""
    ended = session.scalar(select(Worker.ended).where(Worker.id == id))
    return ended or "went silent"


def remove(session: Session, id: str) -> None:
    """Removes the row of a worker that ends."""
    session.execute(delete(Worker).where(Worker.id == id))


def alive(session: Session, now: datetime) -> list[tuple[Worker, Job | None]]:
    """The workers that have written lately, each with the job that it holds, or None."""
    held = Job.lease_owner == Worker.id
    lately = and_(Worker.ended.is_(None), Worker.seen_at > now - timedelta(seconds=SILENT_SECONDS))
    query = select(Worker, Job).join(Job, held, isouter=True).where(lately)
    return [(row[0], row[1]) for row in session.execute(query.order_by(Worker.started_at, Worker.id))]
