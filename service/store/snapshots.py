"""Queries about the snapshots of jobs.

A worker stores a blob and then its row, so each row has a blob. A blob whose row was not written is deleted with the others
when the job has succeeded, or by `service.jobs.leftovers`.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.store import jobs
from service.store.jobs import Lease
from service.store.tables import JobSnapshot, Json

# A damaged snapshot must not cost the whole training, so the one before the newest is kept too.
KEPT = 2


def newest_first(session: Session, job_id: str) -> Sequence[JobSnapshot]:
    """The snapshots of a job: those of the latest attempt first, and of each attempt the one with the most steps first."""
    query = select(JobSnapshot).where(JobSnapshot.job_id == job_id)
    return session.scalars(query.order_by(JobSnapshot.fence.desc(), JobSnapshot.step.desc())).all()


def add(
    session: Session,
    lease: Lease,
    *,
    step: int,
    sha256: str,
    size: int,
    progress: Json | None,
    metrics: Json,
    now: datetime,
) -> Sequence[JobSnapshot]:
    """Adds the row of a new snapshot, and removes the rows of all but the KEPT newest ones. Returns the removed rows.

    If no earlier snapshot has as many steps, the attempt counts as one that made progress. Raises LeaseLost.
    """
    # The same snapshot may be there, if the worker did not hear that it was stored.
    before = [row for row in newest_first(session, lease.job_id) if (row.fence, row.step) != (lease.fence, step)]
    further = step > max((snapshot.step for snapshot in before), default=0)
    jobs.report_snapshot(session, lease, now=now, further=further)
    made = JobSnapshot(
        job_id=lease.job_id, fence=lease.fence, step=step, sha256=sha256, size=size, progress=progress, metrics=metrics,
        created_at=now,
    )  # fmt: skip
    session.merge(made)
    old = before[KEPT - 1 :]
    for snapshot in old:
        session.delete(snapshot)
    session.flush()
    return old


def forget(session: Session, job_id: str) -> None:
    """Removes the rows of all snapshots of a job."""
    session.execute(delete(JobSnapshot).where(JobSnapshot.job_id == job_id))
