"""Queries about the workers that are alive."""

from datetime import datetime, timedelta

from sqlalchemy import delete, select
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


def remove(session: Session, id: str) -> None:
    """Removes the row of a worker that ends."""
    session.execute(delete(Worker).where(Worker.id == id))


def alive(session: Session, now: datetime) -> list[tuple[Worker, Job | None]]:
    """The workers that have written lately, each with the job that it holds, or None."""
    held = Job.lease_owner == Worker.id
    query = select(Worker, Job).join(Job, held, isouter=True).where(Worker.seen_at > now - timedelta(seconds=SILENT_SECONDS))
    return [(row[0], row[1]) for row in session.execute(query.order_by(Worker.started_at, Worker.id))]
