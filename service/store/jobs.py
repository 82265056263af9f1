"""Queries about jobs: creation, the claim, the lease, the end. The state machine is drawn in docs/jobs.md.

A worker's writes carry a `Lease`; `LeaseLost` says that somebody else holds the job by now, or that it is over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, CursorResult, func, or_, select, update
from sqlalchemy.orm import Session

from service.store.pages import Page, newest_first
from service.store.tables import Job, JobEvent, Json

State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]

FINAL: tuple[State, ...] = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Lease:
    """The right to work on a job, until it expires or the job's fence moves on."""

    job_id: str
    owner: str
    fence: int


class LeaseLost(Exception):
    """The lease is somebody else's by now, or the job is over: whatever was to be written must not be."""


def get(session: Session, id: str) -> Job | None:
    return session.get(Job, id)


def with_key(session: Session, idempotency_key: str) -> Job | None:
    return session.scalar(select(Job).where(Job.idempotency_key == idempotency_key))


def page(session: Session, *, state: State | None, checkpoint_id: str | None, limit: int, cursor: str | None) -> Page[Job]:
    query = select(Job)
    if state:
        query = query.where(Job.state == state)
    if checkpoint_id:
        query = query.where(Job.checkpoint_id == checkpoint_id)
    return newest_first(session, query, Job.id, limit=limit, cursor=cursor)


def uses(session: Session, *, checkpoint_id: str | None = None, dataset_id: str | None = None) -> bool:
    """Whether a job that is not over needs this checkpoint or dataset."""
    query = select(Job.id).where(Job.state.not_in(FINAL))
    query = query.where(Job.checkpoint_id == checkpoint_id if checkpoint_id else Job.dataset_id == dataset_id)
    return session.scalar(query.limit(1)) is not None


def add(session: Session, job: Job) -> None:
    session.add(job)
    session.flush()
    _record_state(session, job.id, "queued", job.created_at)


def request_cancel(session: Session, id: str, now: datetime) -> bool:
    """Cancels a waiting job at once and asks the worker of a running one; False if the job is over otherwise."""
    state = session.scalar(select(Job.state).where(Job.id == id).with_for_update())
    if state in ("queued", "paused"):
        _change(session, Job.id == id, state="cancelled", finished_at=now)
        _record_state(session, id, "cancelled", now)
    elif state == "running":
        _change(session, Job.id == id, cancel_requested=True)
    return state in ("queued", "paused", "running", "cancelled")


def claim(session: Session, *, owner: str, now: datetime, lease: timedelta, prefer: str | None = None) -> Lease | None:
    """Takes the job `prefer` or the one that has waited longest, by compare-and-set; None if there is nothing to do."""
    queued = select(Job.id, Job.fence).where(Job.state == "queued").order_by(Job.id).limit(1)
    candidates = [queued.where(Job.id == prefer), queued] if prefer else [queued]
    for query in candidates:
        if (found := session.execute(query).first()) and _change(
            session,
            Job.id == found.id,
            Job.state == "queued",
            Job.fence == found.fence,
            state="running",
            lease_owner=owner,
            lease_expires_at=now + lease,
            attempt=Job.attempt + 1,
            fence=Job.fence + 1,
            started_at=func.coalesce(Job.started_at, now),
        ):
            _record_state(session, found.id, "running", now)
            return Lease(found.id, owner, found.fence + 1)
    return None


def heartbeat(session: Session, lease: Lease, *, now: datetime, extend: timedelta) -> bool:
    """Extends the lease; whether the job is to be cancelled. Raises LeaseLost."""
    _held(session, lease, lease_expires_at=now + extend)
    return bool(session.scalar(select(Job.cancel_requested).where(Job.id == lease.job_id)))


def report_progress(
    session: Session,
    lease: Lease,
    *,
    now: datetime,
    progress: Json,
    metrics: Json,
    estimated_finish_at: datetime | None,
    kinds: Sequence[Literal["progress", "metrics"]],
) -> None:
    """Shows where the job stands and records it as events of these kinds. Raises LeaseLost."""
    _held(session, lease, progress=progress, metrics=metrics, estimated_finish_at=estimated_finish_at)
    for kind in kinds:
        _record(session, lease.job_id, kind, progress if kind == "progress" else metrics, now)


def finish(
    session: Session,
    lease: Lease,
    state: Literal["succeeded", "failed", "cancelled"],
    *,
    now: datetime,
    error: Json | None = None,
    predictor_id: str | None = None,
) -> None:
    """Ends the job. Raises LeaseLost."""
    _held(
        session,
        lease,
        state=state,
        error=error,
        predictor_id=predictor_id,
        finished_at=now,
        estimated_finish_at=None,
        lease_owner=None,
        lease_expires_at=None,
    )
    _record_state(session, lease.job_id, state, now, error=error, predictor_id=predictor_id)


def give_back(session: Session, lease: Lease, *, now: datetime) -> None:
    """Returns the job to the queue because the worker stops, without using up an attempt. Raises LeaseLost.

    A job that is to be cancelled ends instead.
    """
    _held(session, lease, attempt=Job.attempt - 1, estimated_finish_at=None, woken_at=None)
    if session.scalar(select(Job.cancel_requested).where(Job.id == lease.job_id)):
        finish(session, lease, "cancelled", now=now)
        return
    _held(session, lease, state="queued", lease_owner=None, lease_expires_at=None)
    _record_state(session, lease.job_id, "queued", now)


def sweep(session: Session, *, now: datetime, max_attempts: int) -> None:
    """Returns jobs whose worker has gone silent to the queue, or ends them. Safe to run twice, and by many."""
    expired = select(Job).where(Job.state == "running", Job.lease_expires_at < now)
    for job in session.scalars(expired).all():
        error: Json | None = None
        state: State = "queued"
        if job.cancel_requested:
            state = "cancelled"
        elif job.attempt >= max_attempts:
            state = "failed"
            error = {"type": "worker-lost", "detail": f"the worker went silent in each of {job.attempt} attempts"}
        changed = _change(
            session,
            Job.id == job.id,
            Job.state == "running",
            Job.fence == job.fence,
            Job.lease_expires_at < now,
            state=state,
            error=error,
            finished_at=None if state == "queued" else now,
            lease_owner=None,
            lease_expires_at=None,
            estimated_finish_at=None,
            woken_at=None,
        )
        if changed:
            _record_state(session, job.id, state, now, error=error)


def to_wake(session: Session, *, now: datetime, again_after: timedelta, limit: int) -> Sequence[str]:
    """Of the first `limit` queued jobs those that no worker was woken for lately; they count as woken from now on."""
    due = or_(Job.woken_at.is_(None), Job.woken_at < now - again_after)
    first = session.scalars(select(Job.id).where(Job.state == "queued").order_by(Job.id).limit(limit)).all()
    return [id for id in first if _change(session, Job.id == id, Job.state == "queued", due, woken_at=now)]


def events(session: Session, job_id: str, *, after: int, limit: int) -> Sequence[JobEvent]:
    """Events with numbers above `after`, in order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.number > after)
    return session.scalars(query.order_by(JobEvent.number).limit(limit)).all()


def _held(session: Session, lease: Lease, **values: Any) -> None:
    held = (
        Job.id == lease.job_id,
        Job.state == "running",
        Job.lease_owner == lease.owner,
        Job.fence == lease.fence,
    )
    if not _change(session, *held, **values):
        raise LeaseLost(f"job {lease.job_id} is no longer held under fence {lease.fence}")


def _change(session: Session, *conditions: ColumnElement[bool], **values: Any) -> bool:
    result = session.execute(update(Job).where(*conditions).values(**values).execution_options(synchronize_session=False))
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def _record_state(session: Session, job_id: str, state: State, now: datetime, **details: Any) -> None:
    _record(session, job_id, "state", {"state": state, **{k: v for k, v in details.items() if v is not None}}, now)


def _record(session: Session, job_id: str, kind: str, data: Json, now: datetime) -> None:
    # Whoever records has just changed the job's row, so nobody else numbers events of the job meanwhile.
    last = session.scalar(select(func.max(JobEvent.number)).where(JobEvent.job_id == job_id)) or 0
    session.add(JobEvent(job_id=job_id, number=last + 1, kind=kind, data=data, created_at=now))
    session.flush()
