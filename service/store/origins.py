"""Queries about where a job comes from: who asked for it, in which request, and how long it has waited."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.logs.context import About
from service.store.jobs import Lease
from service.store.tables import Job, JobEvent


@dataclass(frozen=True)
class Origin:
    """Where a claimed job comes from.

    request_id, traceparent: the request that has created the job, and its span; None if that is not known.
    attempt: the number of the attempt that begins.
    waited: how long the job was queued before the claim.
    """

    owner: str
    request_id: str | None
    traceparent: str | None
    attempt: int
    waited: timedelta

    def about(self, lease: Lease) -> About:
        """What the lines of the log about the attempt carry."""
        ids = About(job_id=lease.job_id, owner=self.owner, attempt=self.attempt, fence=lease.fence)
        return {"request_id": self.request_id, **ids} if self.request_id else ids


def of(session: Session, lease: Lease) -> Origin:
    """The origin of a job that has just been claimed."""
    columns = select(Job.owner, Job.request_id, Job.traceparent, Job.attempt).where(Job.id == lease.job_id)
    # The newest change of state is the claim, and the one before it is when the job was queued.
    states = select(JobEvent.created_at).where(JobEvent.job_id == lease.job_id, JobEvent.kind == "state")
    claimed_at, queued_at = session.scalars(states.order_by(JobEvent.number.desc()).limit(2)).all()
    return Origin(*session.execute(columns).one(), waited=claimed_at - queued_at)
