"""Queries about what operators watch: the queue, the workers, and the trainings that run."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.store import jobs, workers
from service.store.job_states import sources
from service.store.tables import Job, JobEvent, JobSnapshot, Json


@dataclass(frozen=True)
class Training:
    """A job that runs. `unsaved_seconds`: how much of its work is in no snapshot."""

    job_id: str
    attempt: int
    progress: Json | None
    metrics: Json | None
    unsaved_seconds: float


@dataclass(frozen=True)
class Figures:
    """What is going on. Devices are kinds: cpu, cuda."""

    queued: int
    paused: int
    running: Counter[str]
    """Jobs that run, by the device of their worker."""
    oldest_seconds: float
    """How long ago the state of a queued job became queued: of the job that has waited for the longest. 0 without one."""
    workers: Counter[tuple[str, str]]
    """Workers that are alive, by device and state: idle, busy or faulty."""
    trainings: list[Training]


def figures(session: Session, now: datetime, *, limit: int) -> Figures:
    """What is going on now. Of the trainings, the `limit` newest."""
    queue = jobs.queue(session)
    running = session.execute(
        select(Job.id, Job.worker, Job.attempt, Job.claimed_at, Job.progress, Job.metrics)
        .where(Job.state.in_(sources("extend")))
        .order_by(Job.claimed_at.desc(), Job.id)
    ).all()
    shown = running[:limit]
    newest = select(JobSnapshot.job_id, func.max(JobSnapshot.created_at)).where(JobSnapshot.job_id.in_(row.id for row in shown))
    saved_at = {row[0]: row[1] for row in session.execute(newest.group_by(JobSnapshot.job_id))}
    alive = workers.alive(session, now)
    return Figures(
        queued=queue.queued,
        paused=queue.paused,
        running=Counter(_kind(row.worker) for row in running),
        oldest_seconds=_oldest_seconds(session, now) if queue.queued else 0.0,
        workers=Counter(
            (_kind(worker.about), "faulty" if worker.fault else "busy" if job else "idle") for worker, job in alive
        ),
        trainings=[
            Training(
                row.id,
                row.attempt,
                row.progress,
                row.metrics,
                (now - max(row.claimed_at, saved_at.get(row.id, row.claimed_at))).total_seconds(),
            )
            for row in shown
        ],
    )


def _oldest_seconds(session: Session, now: datetime) -> float:
    """A job that came back to the queue waits since then, and not since it was created."""
    queued = select(func.max(JobEvent.created_at).label("since")).join(Job, Job.id == JobEvent.job_id)
    queued = queued.where(Job.state.in_(sources("claim")), JobEvent.kind == "state").group_by(Job.id)
    since = session.scalar(select(func.min(queued.subquery().c.since)))
    return max(0.0, (now - since).total_seconds()) if since else 0.0


def _kind(place: Json | None) -> str:
    """The kind of the device of a worker."""
    device: str = (place or {}).get("device", "")
    return device.partition(":")[0]
