"""The claim, the lease and the fence: the same on every database."""

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from sqlalchemy.orm import Session

from service.store import jobs, migrate, snapshots, workers
from service.store.database import Database
from service.store.jobs import Lease, LeaseLost
from service.store.tables import Job, Worker
from tests.support import rows
from tests.support.rows import NOW
from tests.support.waiting import DEADLINE_SECONDS

LEASE = timedelta(seconds=30)
LATER = NOW + timedelta(seconds=31)


@pytest.fixture
def add_job(database: Database) -> Callable[..., str]:
    def add(**values: Any) -> str:
        checkpoint = rows.checkpoint()
        job = rows.job(checkpoint.id, **values)
        with database.write() as session:
            session.add(checkpoint)
            session.flush()
            jobs.add(session, job)
        return job.id

    return add


def claim(database: Database, *, owner: str = "worker", now: datetime = NOW) -> Lease | None:
    with database.write() as session:
        return jobs.claim(session, holder=owner, now=now, lease=LEASE)


def held(database: Database, *, owner: str = "worker") -> Lease:
    lease = claim(database, owner=owner)
    assert lease is not None
    return lease


def job(database: Database, id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, id)


def sweep(database: Database, *, now: datetime = LATER, max_attempts: int = 3) -> None:
    with database.write() as session:
        jobs.sweep(session, now=now, max_attempts=max_attempts)


def test_the_job_that_has_waited_longest_is_claimed_first(database: Database, add_job: Callable[..., str]) -> None:
    first, second = add_job(), add_job()
    assert held(database).job_id == first
    assert held(database).job_id == second
    assert claim(database) is None


def test_the_highest_priority_is_claimed_first(database: Database, add_job: Callable[..., str]) -> None:
    low, middle, high = add_job(priority=-1), add_job(), add_job(priority=10)
    assert [held(database).job_id for _ in range(3)] == [high, middle, low]


def test_owners_take_turns(database: Database, add_job: Callable[..., str]) -> None:
    many = [add_job(owner="many") for _ in range(4)]
    few = [add_job(owner="few") for _ in range(2)]
    urgent = add_job(owner="many", priority=1)
    order = [claim(database, now=NOW + timedelta(seconds=number)) for number in range(7)]
    # The owner of the urgent job has had a turn.
    assert [lease and lease.job_id for lease in order] == [urgent, few[0], many[0], few[1], many[1], many[2], many[3]]


def test_a_job_that_waits_after_a_fault_keeps_no_other_waiting(database: Database, add_job: Callable[..., str]) -> None:
    first, second = add_job(priority=1), add_job()
    lease = held(database)
    with database.write() as session:
        jobs.give_back(session, lease, now=NOW, fault="the disk is full")
    assert held(database).job_id == second
    assert claim(database) is None
    due = claim(database, now=NOW + timedelta(seconds=1))
    assert due is not None
    assert due.job_id == first


def test_eight_workers_that_claim_at_once_get_eight_jobs(postgres_url: str) -> None:
    """In one round: no worker waits for another, or comes back with nothing."""
    database = Database(postgres_url)
    migrate.upgrade(database)
    checkpoint = rows.checkpoint()
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        for _ in range(8):
            jobs.add(session, rows.job(checkpoint.id))
    together, claimed = Barrier(8), []

    def work() -> None:
        with database.write() as session:
            lease = jobs.claim(session, holder="worker", now=NOW, lease=LEASE)
            # Every worker holds its claim until all have one.
            together.wait(DEADLINE_SECONDS)
            claimed.append(lease and lease.job_id)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    database.close()
    assert None not in claimed
    assert len(set(claimed)) == 8


def test_a_claim_counts_the_attempt_and_moves_the_fence(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    lease = held(database)
    claimed = job(database, id)
    assert (claimed.state, claimed.attempt, claimed.fence, claimed.lease_expires_at) == ("running", 1, 1, NOW + LEASE)
    assert lease == Lease(id, "worker", 1)


def test_workers_that_claim_at_the_same_time_never_get_the_same_job(database: Database, add_job: Callable[..., str]) -> None:
    waiting = {add_job() for _ in range(4)}
    claimed: list[str] = []
    together = Barrier(8)

    def work(owner: str) -> None:
        together.wait()
        while len(claimed) < 4:
            if lease := claim(database, owner=owner):
                claimed.append(lease.job_id)

    threads = [Thread(target=work, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert sorted(claimed) == sorted(waiting)


def test_a_heartbeat_extends_the_lease_and_brings_word_of_cancellation(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    lease = held(database)
    with database.write() as session:
        assert not jobs.heartbeat(session, lease, now=LATER, extend=LEASE)
    sweep(database)
    assert job(database, id).state == "running"
    with database.write() as session:
        assert jobs.request_cancel(session, id, NOW)
    with database.write() as session:
        assert jobs.heartbeat(session, lease, now=LATER, extend=LEASE)


def test_a_silent_workers_job_goes_back_to_the_queue_and_its_writes_are_refused(
    database: Database, add_job: Callable[..., str]
) -> None:
    id = add_job()
    late = held(database, owner="late")
    sweep(database)
    assert job(database, id).state == "queued"
    new = held(database, owner="new")
    assert (new.job_id, new.fence, job(database, id).attempt) == (id, 2, 2)
    writes: list[Callable[[Session], object]] = [
        lambda session: jobs.heartbeat(session, late, now=LATER, extend=LEASE),
        lambda session: jobs.finish(session, late, "succeeded", now=LATER),
        lambda session: jobs.give_back(session, late, now=LATER),
        lambda session: jobs.report_progress(
            session, late, now=LATER, progress={}, metrics={}, estimated_finish_at=None, kinds=["progress"]
        ),
    ]
    for write in writes:
        with pytest.raises(LeaseLost), database.write() as session:
            write(session)
    assert job(database, id).lease_owner == "new"


def test_the_same_owner_under_an_old_fence_is_refused_too(database: Database, add_job: Callable[..., str]) -> None:
    add_job()
    old = held(database)
    sweep(database)
    held(database)
    with pytest.raises(LeaseLost), database.write() as session:
        jobs.finish(session, old, "succeeded", now=LATER)


def test_a_job_whose_workers_all_go_silent_fails_with_the_reason(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    for _ in range(2):
        held(database)
        sweep(database, max_attempts=2)
    failed = job(database, id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["type"] == "worker-lost"
    assert failed.finished_at == LATER
    assert claim(database) is None


def test_a_job_that_is_to_pause_is_paused_when_its_worker_goes_silent(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    held(database)
    with database.write() as session:
        assert jobs.request_pause(session, id, NOW)
    assert job(database, id).state == "running"
    sweep(database)
    assert (job(database, id).state, job(database, id).pause_requested) == ("paused", False)
    assert claim(database) is None


def test_cancelling_comes_before_pausing(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    lease = held(database)
    with database.write() as session:
        jobs.request_pause(session, id, NOW)
        jobs.request_cancel(session, id, NOW)
        assert jobs.heartbeat(session, lease, now=NOW, extend=LEASE) == "cancel"
        jobs.give_back(session, lease, now=NOW)
    assert job(database, id).state == "cancelled"


def test_a_retried_job_begins_anew(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    for _ in range(2):
        held(database)
        sweep(database, max_attempts=2)
    with database.write() as session:
        assert jobs.retry(session, id, NOW)
        assert jobs.retry(session, id, NOW)
    retried = job(database, id)
    assert (retried.state, retried.attempt, retried.error, retried.finished_at) == ("queued", 0, None, None)
    lease = held(database)
    with database.write() as session:
        assert jobs.heartbeat(session, lease, now=NOW, extend=LEASE) is None
        jobs.request_cancel(session, id, NOW)
        jobs.give_back(session, lease, now=NOW)
        assert jobs.retry(session, id, NOW)
    again = held(database)
    with database.write() as session:
        assert jobs.heartbeat(session, again, now=NOW, extend=LEASE) is None
        jobs.finish(session, again, "succeeded", now=NOW)
        assert not jobs.retry(session, id, NOW)
        states = [event.data["state"] for event in jobs.events(session, id, after=0, limit=99) if event.kind == "state"]
    assert states[-6:] == ["queued", "running", "cancelled", "queued", "running", "succeeded"]


def test_a_cancelled_job_whose_worker_goes_silent_is_cancelled(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    held(database)
    with database.write() as session:
        jobs.request_cancel(session, id, NOW)
    sweep(database)
    assert job(database, id).state == "cancelled"


def test_giving_back_does_not_use_up_an_attempt(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    lease = held(database)
    with database.write() as session:
        jobs.give_back(session, lease, now=NOW)
    given_back = job(database, id)
    assert (given_back.state, given_back.attempt, given_back.fence) == ("queued", 0, 1)


def test_a_cancelled_job_that_is_given_back_ends(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    lease = held(database)
    with database.write() as session:
        jobs.request_cancel(session, id, NOW)
    with database.write() as session:
        jobs.give_back(session, lease, now=NOW)
    assert job(database, id).state == "cancelled"
    assert claim(database) is None


def test_cancelling(database: Database, add_job: Callable[..., str]) -> None:
    waiting, done = add_job(), add_job()
    with database.write() as session:
        assert jobs.request_cancel(session, waiting, NOW)
        assert jobs.request_cancel(session, waiting, NOW)
    assert job(database, waiting).state == "cancelled"
    lease = held(database)
    with database.write() as session:
        jobs.finish(session, lease, "succeeded", now=NOW)
    with database.write() as session:
        assert not jobs.request_cancel(session, done, NOW)


def test_events_are_numbered_without_gaps_and_end_with_the_final_state(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    lease = held(database)
    with database.write() as session:
        jobs.report_progress(
            session, lease, now=NOW, progress={"step": 1}, metrics={"loss": 2.0}, estimated_finish_at=None,
            kinds=["progress", "metrics"],
        )  # fmt: skip
        jobs.finish(session, lease, "failed", now=NOW, error={"type": "t", "detail": "d"})
    with database.read() as session:
        events = jobs.events(session, id, after=0, limit=100)
        assert [event.number for event in jobs.events(session, id, after=3, limit=1)] == [4]
    assert [(event.number, event.kind) for event in events] == [
        (1, "state"), (2, "state"), (3, "progress"), (4, "metrics"), (5, "state"),
    ]  # fmt: skip
    assert events[-1].data == {"state": "failed", "error": {"type": "t", "detail": "d"}}


def store(database: Database, lease: Lease, step: int) -> list[tuple[int, int]]:
    """Adds the row of a snapshot. Returns fence and step of the rows that were removed."""
    progress = {"step": step, "steps": 99}
    with database.write() as session:
        old = snapshots.add(
            session, lease, step=step, sha256="0" * 64, size=1, progress=progress, metrics={"loss": step}, now=NOW
        )
        return [(row.fence, row.step) for row in old]


def rows_of(database: Database, id: str) -> list[tuple[int, int]]:
    with database.read() as session:
        return [(row.fence, row.step) for row in snapshots.newest_first(session, id)]


def test_the_two_newest_snapshots_are_kept(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    first = held(database)
    assert [store(database, first, step) for step in (10, 20, 30)] == [[], [], [(1, 10)]]
    sweep(database)
    # The second attempt could use no snapshot, and began anew.
    assert store(database, held(database), 5) == [(1, 20)]
    assert rows_of(database, id) == [(2, 5), (1, 30)]


def test_a_snapshot_without_a_lease_is_refused(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    late = held(database)
    sweep(database)
    held(database)
    with pytest.raises(LeaseLost):
        store(database, late, 10)
    assert rows_of(database, id) == []


def test_attempts_that_make_progress_do_not_count(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    for step in range(1, 8):
        store(database, held(database), step)
        sweep(database, max_attempts=2)
    assert (job(database, id).state, job(database, id).attempt) == ("queued", 7)
    for state in ("queued", "failed"):
        # As far as before, and no further.
        store(database, held(database), 7)
        sweep(database, max_attempts=2)
        assert job(database, id).state == state
    error = job(database, id).error
    assert error is not None
    assert error["detail"] == "2 attempts in a row made no progress; in the last, the worker went silent at step 7 of 99"


def test_a_stop_counts_no_attempt_and_forgives_none(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    held(database)
    sweep(database, max_attempts=2)
    for _ in range(3):
        lease = held(database)
        with database.write() as session:
            jobs.give_back(session, lease, now=NOW)
    assert (job(database, id).attempt, job(database, id).fruitless) == (1, 1)
    held(database)
    sweep(database, max_attempts=2)
    error = job(database, id).error
    assert error is not None
    assert error["detail"] == "2 attempts in a row made no progress; in the last, the worker went silent before its first step"


def test_a_job_that_returns_to_the_queue_shows_what_is_stored(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()

    def report(lease: Lease, step: int) -> None:
        with database.write() as session:
            jobs.report_progress(
                session,
                lease,
                now=NOW,
                progress={"step": step, "steps": 99},
                metrics={"loss": step},
                estimated_finish_at=NOW,
                kinds=[],
            )

    report(held(database), 9)
    sweep(database)
    assert (job(database, id).progress, job(database, id).metrics) == (None, None)
    lease = held(database)
    store(database, lease, 20)
    store(database, lease, 30)
    report(lease, 35)
    assert (job(database, id).progress or {})["step"] == 35
    with database.write() as session:
        jobs.give_back(session, lease, now=NOW)
    shown = job(database, id)
    assert (shown.progress, shown.metrics, shown.estimated_finish_at) == ({"step": 30, "steps": 99}, {"loss": 30}, None)


def test_a_retry_goes_on_from_the_snapshot_or_from_the_start(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    store(database, held(database), 20)
    with database.write() as session:
        # A job that runs keeps its snapshots.
        assert jobs.retry(session, id, NOW, from_start=True)
    assert rows_of(database, id) == [(1, 20)]
    for from_start, step in ((False, 20), (True, None)):
        sweep(database)
        with database.write() as session:
            assert jobs.request_cancel(session, id, NOW)
            assert jobs.retry(session, id, NOW, from_start=from_start)
        shown = job(database, id)
        assert (shown.progress and shown.progress["step"]) == step
    assert rows_of(database, id) == []


def test_what_was_seen_of_an_attempt_is_told(database: Database, add_job: Callable[..., str]) -> None:
    id = add_job()
    about = {"host": "node-1", "process": 7}
    with database.write() as session:
        workers.write(session, Worker(id="worker", about=about, free_memory=1, fault=None, started_at=NOW, seen_at=NOW))
        workers.write(session, Worker(id="other", about={**about, "process": 8}, free_memory=1, started_at=NOW, seen_at=NOW))
    store(database, held(database), 5)
    with database.write() as session:
        workers.record_end(session, host="node-2", process=7, end="ended with status 1")
        workers.record_end(session, host="node-1", process=7, end="was ended by signal 9 (Killed)")
        assert [worker.id for worker, _ in workers.alive(session, NOW)] == ["other"]
    sweep(database, max_attempts=1)
    with database.read() as session:
        last = jobs.tail(session, id, 1)[0]
    assert last.data == {"state": "queued", "reason": "the worker was ended by signal 9 (Killed) before its first step"}
