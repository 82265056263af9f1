"""Queries about jobs: creation, claim, lease and end. Every change of state follows `service.store.job_states`.

Every write of a worker takes the worker's `Lease`, and raises `LeaseLost` if another worker holds the job or the job is over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, CursorResult, ScalarSelect, and_, case, delete, false, func, literal, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.store import deliveries, shares, workers
from service.store.job_states import FINAL, INITIAL, TRANSITIONS, Action, State, sources
from service.store.owners import EVERYBODY, SHARED, shared_with
from service.store.pages import Page, newest_first
from service.store.tables import Delivery, Job, JobEvent, JobSnapshot, Json

End = Literal["succeeded", "failed", "cancelled"]

# PostgreSQL notifies those that listen on this channel of every event.
CHANNEL = "nern_events"

# A job that a worker gave back because of a fault of its machine waits for 1 s, then for 2 s, and so on up to this time.
LONGEST_PAUSE_SECONDS = 300.0
MAX_DOUBLINGS = 16

# What a client may ask the worker of a running job to do.
Wish = Literal["cancel", "pause"]

# What is shown of the progress of a job, and what the job shows when it goes on from a snapshot.
SHOWN = {"progress": JobSnapshot.progress, "metrics": JobSnapshot.metrics}

# The action with which a worker ends a job, by the final state.
ENDING: dict[End, Action] = {"succeeded": "succeed", "failed": "fail", "cancelled": "acknowledge"}


@dataclass(frozen=True)
class Lease:
    """A worker's right to work on a job. The right ends when the job has another fence, because another worker claimed it."""

    job_id: str
    holder: str
    fence: int


class LeaseLost(Exception):
    """Another worker holds the job, or the job is over. Nothing was written."""


def get(session: Session, id: str, *, shared: bool = False) -> Job | None:
    """The job of this id. `shared`: it may be one that another owner shares with the owner of the session."""
    return session.get(Job, id, execution_options=SHARED if shared else {})


def with_key(session: Session, idempotency_key: str) -> Job | None:
    """The job that was created by a request with this Idempotency-Key."""
    return session.scalar(select(Job).where(Job.idempotency_key == idempotency_key))


def page(
    session: Session,
    *,
    state: State | None,
    checkpoint_id: str | None,
    shared: bool = False,
    limit: int,
    cursor: str | None,
) -> Page[Job]:
    """A page of jobs of the owner, or shared with the owner: all, or those in one state or for one checkpoint."""
    query = shared_with(session, select(Job), Job) if shared else select(Job)
    if state:
        query = query.where(Job.state == state)
    if checkpoint_id:
        query = query.where(Job.checkpoint_id == checkpoint_id)
    return newest_first(session, query, Job.id, limit=limit, cursor=cursor)


def uses(session: Session, *, checkpoint_id: str | None = None, dataset_id: str | None = None) -> bool:
    """Whether a job that is not over needs the checkpoint, or else the dataset. It may be a job of another owner.

    Exactly one of the two ids must be given.
    """
    query = select(Job.id).where(Job.state.not_in(FINAL))
    query = query.where(Job.checkpoint_id == checkpoint_id if checkpoint_id else Job.dataset_id == dataset_id)
    return session.scalar(query.limit(1), execution_options=EVERYBODY) is not None


def add(session: Session, job: Job) -> None:
    """Stores a new job in the state INITIAL, with its first event."""
    job.state = INITIAL
    session.add(job)
    session.flush()
    _record_state(session, job.id, INITIAL, job.created_at)


def request_cancel(session: Session, id: str, now: datetime) -> bool:
    """Cancels a queued or paused job at once, and asks the worker of a running job to end it.

    Returns False if the job has succeeded or failed. A job that is cancelled already stays cancelled.
    """
    _lock(session, id)
    return _take(session, "cancel", Job.id == id, id=id, now=now, cancel_requested=True)


def request_pause(session: Session, id: str, now: datetime) -> bool:
    """Pauses a queued job at once, and asks the worker of a running job to give the job back.

    Returns False for a job that is over.
    """
    _lock(session, id)
    running = Job.state.in_(sources("extend"))
    asked = _take(session, "pause", running, id=id, now=now, pause_requested=True)
    return asked or _take(session, "pause", ~running, id=id, now=now)


def resume(session: Session, id: str, now: datetime) -> bool:
    """Queues a paused job again. A running job that was to be paused goes on. Returns False for a job that is over."""
    _lock(session, id)
    return _take(session, "resume", Job.id == id, id=id, now=now, pause_requested=False)


def retry(session: Session, id: str, now: datetime, *, from_start: bool = False) -> bool:
    """Queues a job that has failed or was cancelled again. A job that is queued or runs stays as it is.

    Attempts are counted anew. The job goes on from its newest snapshot, or `from_start`: its snapshots are forgotten then.
    Returns False for a job that has succeeded or is paused.
    """
    _lock(session, id)
    anew: dict[str, Any] = {
        "attempt": 0,
        "fruitless": 0,
        "faults": 0,
        "not_before": None,
        "cancel_requested": False,
        "error": None,
        "finished_at": None,
    }
    over = Job.state.in_(("failed", "cancelled"))
    if from_start:
        session.execute(delete(JobSnapshot).where(JobSnapshot.job_id.in_(select(Job.id).where(Job.id == id, over))))
    return _take(session, "retry", over, id=id, now=now, **anew) or _take(session, "retry", ~over, id=id, now=now)


def claim(
    session: Session,
    *,
    holder: str,
    now: datetime,
    lease: timedelta,
    where: Json | None = None,
    max_running: int = 0,
) -> Lease | None:
    """Claims the queued job that is due first, for the worker `holder` that runs `where`. Returns None if no job was claimed.

    The highest priority comes first. Among jobs of equal priority, their owners take turns: first comes the owner whose latest
    claim is the longest ago. The oldest job of an owner comes first. A job that was given back because of a fault waits until
    its `not_before`. The jobs of an owner of whom `max_running` jobs run wait too (0: any number may run).

    Several workers that claim at the same time get different jobs: PostgreSQL skips the rows that others have locked, and in
    SQLite one transaction writes at a time. The claim itself is a compare-and-set on state and fence.
    """
    # The state is written into the statement. With a parameter, a database can't know that its index of queued jobs will do.
    queued = or_(false(), *(Job.state == literal(state, literal_execute=True) for state in sources("claim")))
    due = and_(queued, or_(Job.not_before.is_(None), Job.not_before <= now))
    if max_running:
        running = or_(false(), *(Job.state == literal(state, literal_execute=True) for state in sources("extend")))
        busy = select(Job.owner).where(running).group_by(Job.owner).having(func.count() >= max_running)
        due = and_(due, Job.owner.not_in(session.scalars(busy).all()))
    if (priority := session.scalar(select(func.max(Job.priority)).where(due))) is None:
        return None
    first = and_(due, Job.priority == priority)
    for turn in _turns(session, first):
        waiting = select(Job.id, Job.fence).where(first, Job.owner == turn).order_by(Job.id).limit(1)
        found = session.execute(waiting.with_for_update(skip_locked=True)).first()
        if found and _take(
            session,
            "claim",
            Job.fence == found.fence,
            id=found.id,
            now=now,
            lease_owner=holder,
            lease_expires_at=now + lease,
            claimed_at=now,
            worker=where,
            attempt=Job.attempt + 1,
            fruitless=Job.fruitless + 1,
            fence=Job.fence + 1,
            started_at=func.coalesce(Job.started_at, now),
        ):
            return Lease(found.id, holder, found.fence + 1)
    return None


def heartbeat(session: Session, lease: Lease, *, now: datetime, extend: timedelta) -> Wish | None:
    """Extends the lease until `now` + `extend`. Returns what a client has asked for. Raises LeaseLost."""
    _take_held(session, "extend", lease, now=now, lease_expires_at=now + extend)
    return _wish(session, lease.job_id)


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
    """Writes progress and metrics to the row of the job, and records an event of each kind in `kinds`. Raises LeaseLost."""
    shown: dict[str, Any] = {"progress": progress, "metrics": metrics, "estimated_finish_at": estimated_finish_at}
    _take_held(session, "report", lease, now=now, **shown)
    for kind in kinds:
        _record(session, lease.job_id, kind, progress if kind == "progress" else metrics, now)


def report_resumption(session: Session, lease: Lease, *, now: datetime, resumed: Json) -> None:
    """Records as an event from which snapshot the attempt goes on, and which ones were refused. Raises LeaseLost."""
    _take_held(session, "report", lease, now=now)
    _record(session, lease.job_id, "resumed", resumed, now)


def report_snapshot(session: Session, lease: Lease, *, now: datetime, further: bool) -> None:
    """Locks the row of the job for a new snapshot. Raises LeaseLost.

    `further`: no earlier snapshot has as many steps, so that the attempt counts as one that made progress.
    """
    progress: dict[str, Any] = {"fruitless": 0} if further else {}
    _take_held(session, "report", lease, now=now, faults=0, **progress)


def finish(
    session: Session, lease: Lease, end: End, *, now: datetime, error: Json | None = None, predictor_id: str | None = None
) -> None:
    """Ends the job with an error (failed), a predictor (succeeded) or neither (cancelled). Raises LeaseLost."""
    _take_held(session, ENDING[end], lease, now=now, error=error, predictor_id=predictor_id)


def may_try_again(session: Session, lease: Lease, *, max_attempts: int) -> bool:
    """Whether the job has had fewer attempts in a row without progress than `max_attempts`."""
    fruitless: int = session.execute(select(Job.fruitless).where(Job.id == lease.job_id)).scalar_one()
    return fruitless < max_attempts


def give_back(session: Session, lease: Lease, *, now: datetime, fault: str | None = None, counted: bool = False) -> None:
    """Returns the job to the queue, and does not count the attempt unless `counted` says so. Raises LeaseLost.

    fault: what is wrong with the machine of the worker, as a sentence for the client. The job waits before a worker may claim
        it again, longer after each fault in a row.

    A job that a client has asked to cancel or to pause becomes cancelled or paused in place of queued.
    """
    changes: dict[str, Any] = {}
    if not counted:
        changes = {"attempt": Job.attempt - 1, "fruitless": case((Job.fruitless > 0, Job.fruitless - 1), else_=0)}
    if fault:
        faults = session.execute(select(Job.faults).where(Job.id == lease.job_id)).scalar_one()
        pause = min(LONGEST_PAUSE_SECONDS, 2.0 ** min(faults, MAX_DOUBLINGS))
        changes |= {"faults": faults + 1, "not_before": now + timedelta(seconds=pause)}
    # This write locks the row, so that no client can ask for anything between the query below and the next write.
    _take_held(session, "report", lease, now=now, **changes)
    wish = _wish(session, lease.job_id)
    if wish == "cancel":
        finish(session, lease, "cancelled", now=now)
    else:
        _take_held(session, "suspend" if wish == "pause" else "give_back", lease, now=now, reason=fault)


def sweep(session: Session, *, now: datetime, max_attempts: int) -> list[State]:
    """Returns each job whose lease has expired to the queue, or ends or pauses it. Safe to run in several processes at once.

    The job ends if a client has asked to cancel it, or after `max_attempts` attempts in a row without progress that was stored.
    Returns the new states of these jobs.
    """
    swept: list[State] = []
    expired = select(Job).where(Job.state.in_(sources("take_back")), Job.lease_expires_at < now)
    for job in session.scalars(expired).all():
        action: Action = "take_back"
        error: Json | None = None
        seen = _seen(session, job)
        if job.cancel_requested:
            action = "acknowledge"
        elif job.fruitless >= max_attempts:
            action = "give_up"
            error = {
                "type": "worker-lost",
                "detail": f"{job.fruitless} attempts in a row made no progress; in the last, {seen}",
            }
        elif job.pause_requested:
            action = "suspend"
        still_expired = (Job.fence == job.fence, Job.lease_expires_at < now)
        if _take(session, action, *still_expired, id=job.id, now=now, error=error, reason=seen):
            swept.append(TRANSITIONS["running", action])
    return swept


def remove(session: Session, id: str) -> None:
    """Removes a job that is over, with its events and the rows of its snapshots. The caller removes the blobs."""
    for table in (JobEvent, JobSnapshot, Delivery):
        session.execute(delete(table).where(table.job_id == id))
    shares.forget(session, id)
    session.execute(delete(Job).where(Job.id == id, Job.state.in_(FINAL)))


@dataclass(frozen=True)
class Queue:
    """How many jobs wait and run, and since when the oldest queued job exists."""

    queued: int
    running: int
    paused: int
    oldest: datetime | None


def queue(session: Session) -> Queue:
    """The jobs that are not over."""
    states = [state for state in get_args(State) if state not in FINAL]
    counted = select(Job.state, func.count(), func.min(Job.created_at)).where(Job.state.in_(states)).group_by(Job.state)
    found = {state: (count, oldest) for state, count, oldest in session.execute(counted)}
    count = {state: found.get(state, (0, None))[0] for state in ("queued", "running", "paused")}
    return Queue(**count, oldest=found.get("queued", (0, None))[1])


def events(session: Session, job_id: str, *, after: int, limit: int) -> Sequence[JobEvent]:
    """At most `limit` events of a job with numbers greater than `after`, in ascending order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.number > after)
    return session.scalars(query.order_by(JobEvent.number).limit(limit)).all()


def _turns(session: Session, first: ColumnElement[bool]) -> list[str]:
    """The owners of the jobs that `first` selects, in the order of their turns."""
    owners: list[str] = []
    # One owner after the other, each by a look into an index. To group all queued jobs by owner would read them all.
    owner = session.scalar(select(func.min(Job.owner)).where(first))
    while owner is not None:
        owners.append(owner)
        owner = session.scalar(select(func.min(Job.owner)).where(first, Job.owner > owner))
    if len(owners) < 2:
        return owners
    claimed = {owner: session.scalar(select(func.max(Job.claimed_at)).where(Job.owner == owner)) for owner in owners}
    return sorted(owners, key=lambda owner: (claimed[owner] is not None, claimed[owner], owner))


def tail(session: Session, job_id: str, limit: int) -> Sequence[JobEvent]:
    """The newest `limit` events of a job, in ascending order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id)
    return session.scalars(query.order_by(JobEvent.number.desc()).limit(limit)).all()[::-1]


def _lock(session: Session, id: str) -> None:
    """Locks the row of a job. `_take` tries one state after the other, and the job must not change to one that was tried."""
    session.execute(select(Job.id).where(Job.id == id).with_for_update())


def _wish(session: Session, id: str) -> Wish | None:
    """What a client has asked the worker of a job to do."""
    cancel, pause = session.execute(select(Job.cancel_requested, Job.pause_requested).where(Job.id == id)).one()
    return "cancel" if cancel else "pause" if pause else None


def _take_held(
    session: Session, action: Action, lease: Lease, *, now: datetime, reason: str | None = None, **values: Any
) -> None:
    """Like `_take`, for the job of a lease, on the condition that owner and fence are still the lease's. Raises LeaseLost."""
    held = (Job.lease_owner == lease.holder, Job.fence == lease.fence)
    if not _take(session, action, *held, id=lease.job_id, now=now, reason=reason, **values):
        raise LeaseLost(f"job {lease.job_id} is not running under fence {lease.fence}")


def _take(
    session: Session,
    action: Action,
    *conditions: ColumnElement[bool],
    id: str,
    now: datetime,
    reason: str | None = None,
    **values: Any,
) -> bool:
    """Applies an action to a job and writes `values` to its row, if the state allows the action and all conditions hold.

    Returns whether the action was applied. A change of state is recorded as an event, with the reason.
    """
    for state in sources(action):
        new = TRANSITIONS[state, action]
        changes = {**_on_entering(new, now), **values} if new != state else values
        if _change(session, Job.id == id, Job.state == state, *conditions, state=new, **changes):
            if new != state:
                details = {name: values[name] for name in ("error", "predictor_id") if name in values}
                _record_state(session, id, new, now, reason=reason, **details)
            return True
    return False


def _on_entering(state: State, now: datetime) -> dict[str, Any]:
    """Values that the row of a job takes when the job enters a state, whichever action led there."""
    if state in sources("extend"):  # a worker holds the lease
        return {}
    without_lease = {"lease_owner": None, "lease_expires_at": None, "estimated_finish_at": None, "pause_requested": False}
    if state in FINAL:
        return {**without_lease, "finished_at": now}
    # The steps after the newest snapshot will be made again.
    stored = {name: _newest_snapshot(column) for name, column in SHOWN.items()}
    return {**without_lease, **stored}


def _newest_snapshot(column: InstrumentedAttribute[Any]) -> ScalarSelect[Any]:
    """A column of the newest snapshot of a job, null without a snapshot. Part of an update of the job."""
    of_job = select(column).where(JobSnapshot.job_id == Job.id).correlate(Job)
    return of_job.order_by(JobSnapshot.fence.desc(), JobSnapshot.step.desc()).limit(1).scalar_subquery()


def _seen(session: Session, job: Job) -> str:
    """What was seen of an attempt whose worker has extended its lease no more."""
    where = f"at step {job.progress['step']} of {job.progress['steps']}" if job.progress else "before its first step"
    return f"the worker {workers.end_of(session, job.lease_owner)} {where}"


def _change(session: Session, *conditions: ColumnElement[bool], **values: Any) -> bool:
    result = session.execute(update(Job).where(*conditions).values(**values).execution_options(synchronize_session=False))
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def _record_state(session: Session, job_id: str, state: State, now: datetime, **details: Any) -> None:
    given = {name: value for name, value in details.items() if value is not None}
    _record(session, job_id, "state", {"state": state, **given}, now)
    if state in FINAL:
        deliveries.add(session, job_id, state, now, given)


def _record(session: Session, job_id: str, kind: str, data: Json, now: datetime) -> None:
    # Every caller has changed or inserted the row of the job in this transaction and so holds its lock. Therefore, no other
    # transaction can take the same number.
    last = session.scalar(select(func.max(JobEvent.number)).where(JobEvent.job_id == job_id)) or 0
    session.add(JobEvent(job_id=job_id, number=last + 1, kind=kind, data=data, created_at=now))
    session.flush()
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_notify(CHANNEL, job_id)))
