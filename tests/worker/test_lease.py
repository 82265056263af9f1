"""A job that runs while other things happen: cancellation, stops, a lease that is lost, a database that is away."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from math import inf
from threading import Event, Semaphore, Thread
from typing import Any
from unittest.mock import patch

import pytest

from service.store import jobs
from service.store.database import Away
from tests.support.networks import resnet8
from tests.support.place import Place
from tests.support.rows import NOW
from tests.support.waiting import DEADLINE_SECONDS, until
from worker import lease, reporting


def working(place: Place) -> tuple[str, Thread]:
    """A job that would take for ever, and the thread that works on it."""
    id = place.add(resnet8(), architecture=None, steps=1_000_000)
    thread = Thread(target=place.worker.work)
    thread.start()
    until(lambda: (place.job(id).progress or {}).get("step"), what="a first step")
    return id, thread


@pytest.fixture
def _quick_pulse() -> Iterator[None]:
    with patch.object(lease, "HEARTBEAT_SECONDS", 0.05), patch.object(reporting, "REPORT_SECONDS", 0.05):
        yield


@pytest.mark.usefixtures("_quick_pulse")
def test_a_running_job_is_cancelled_soon(place: Place) -> None:
    id, thread = working(place)
    with place.database.write() as session:
        jobs.request_cancel(session, id, NOW)
    thread.join(DEADLINE_SECONDS)
    assert (place.job(id).state, place.job(id).predictor_id) == ("cancelled", None)


@pytest.mark.usefixtures("_quick_pulse")
def test_a_running_job_is_paused_soon_and_holds_no_worker(place: Place) -> None:
    id, thread = working(place)
    with place.database.write() as session:
        assert jobs.request_pause(session, id, NOW)
    thread.join(DEADLINE_SECONDS)
    job = place.job(id)
    assert (job.state, job.attempt, job.lease_owner, job.pause_requested) == ("paused", 0, None, False)
    assert not place.worker.work()
    with place.database.write() as session:
        assert jobs.resume(session, id, NOW)
    assert place.job(id).state == "queued"


@pytest.mark.usefixtures("_quick_pulse")
def test_a_pause_that_was_taken_back_in_time_does_nothing(place: Place) -> None:
    pulses: list[lease.Pulse] = []
    go_on = Event()

    def cancellation(pulse: lease.Pulse) -> None:
        pulses.append(pulse)
        go_on.wait(DEADLINE_SECONDS)
        real(pulse)

    real = lease.Pulse.cancellation
    with patch.object(lease.Pulse, "cancellation", cancellation):
        id = place.add(resnet8(), architecture=None)
        thread = Thread(target=place.worker.work)
        thread.start()
        until(lambda: pulses, what="the training")
        with place.database.write() as session:
            assert jobs.request_pause(session, id, NOW)
        until(pulses[0].paused.is_set, what="the pause")
        with place.database.write() as session:
            assert jobs.resume(session, id, NOW)
        until(lambda: not pulses[0].paused.is_set(), what="the end of the pause")
        go_on.set()
        thread.join(DEADLINE_SECONDS)
    assert place.job(id).state == "succeeded"


@pytest.mark.usefixtures("_quick_pulse")
def test_a_worker_that_stops_gives_its_job_back(place: Place) -> None:
    id, thread = working(place)
    place.stopping.set()
    thread.join(DEADLINE_SECONDS)
    job = place.job(id)
    assert (job.state, job.attempt, job.lease_owner) == ("queued", 0, None)


@pytest.mark.usefixtures("_quick_pulse")
def test_a_worker_that_lost_its_lease_writes_nothing_and_stops(place: Place) -> None:
    id, thread = working(place)
    with place.database.write() as session:
        jobs.sweep(session, now=datetime.now(UTC) + timedelta(hours=1), max_attempts=3)
        taken = jobs.claim(session, holder="another", now=datetime.now(UTC), lease=timedelta(hours=1))
    assert taken is not None
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    job = place.job(id)
    assert (job.state, job.lease_owner, job.fence) == ("running", "another", 2)


@pytest.mark.usefixtures("_quick_pulse")
@pytest.mark.parametrize("taken", [False, True])
def test_a_training_waits_while_nobody_knows_who_holds_the_lease(place: Place, *, taken: bool) -> None:
    """The database is away for longer than the lease. Then it says whether another worker has taken the job."""
    id = place.add(resnet8(), architecture=None)
    with place.database.write() as session:
        held = jobs.claim(session, holder="worker", now=NOW, lease=timedelta(seconds=1))
    assert held is not None
    away, tried = Event(), Semaphore(0)
    away.set()
    real = jobs.heartbeat

    def heartbeat(*args: Any, **kwargs: Any) -> Any:
        tried.release()
        if away.is_set():
            raise Away
        return real(*args, **kwargs)

    ended: list[BaseException | None] = []

    def train(pulse: lease.Pulse) -> None:
        try:
            ended.append(pulse.cancellation())  # type: ignore[func-returns-value]  # None says that it returned
        except jobs.LeaseLost as error:
            ended.append(error)

    settings = place.settings.model_copy(update={"lease_seconds": 0.2})
    with (
        patch.object(jobs, "heartbeat", heartbeat),
        lease.kept_alive(place.database, settings, held, place.stopping) as pulse,
    ):
        until(lambda: time.monotonic() > pulse.expires, what="the end of the lease")
        training = Thread(target=train, args=(pulse,))
        training.start()
        for _ in range(3):
            assert tried.acquire(timeout=DEADLINE_SECONDS)
        assert not ended
        if taken:
            with place.database.write() as session:
                jobs.sweep(session, now=datetime.now(UTC), max_attempts=3)
        away.clear()
        training.join(DEADLINE_SECONDS)
    assert [type(end) for end in ended] == [jobs.LeaseLost if taken else type(None)]
    assert place.job(id).state == ("queued" if taken else "running")


@pytest.mark.usefixtures("_quick_pulse")
def test_a_worker_may_stop_while_the_database_is_away(place: Place) -> None:
    pulse = lease.Pulse(place.stopping, time.monotonic())
    place.stopping.set()
    with pytest.raises(lease.Stopped):
        pulse.cancellation()


@pytest.mark.usefixtures("_quick_pulse")
def test_a_result_is_not_written_after_the_lease_was_lost(place: Place) -> None:
    def away() -> None:
        pulse.lost.set()
        raise Away

    pulse = lease.Pulse(place.stopping)
    with pytest.raises(jobs.LeaseLost):
        pulse.persist(away)


@pytest.mark.usefixtures("_quick_pulse")
def test_a_long_training_keeps_its_lease(place: Place) -> None:
    id, thread = working(place)
    first = place.job(id).lease_expires_at
    assert first is not None
    until(lambda: (place.job(id).lease_expires_at or NOW) > first, what="an extended lease")
    place.stopping.set()
    thread.join(DEADLINE_SECONDS)


@pytest.mark.usefixtures("_quick_pulse")
def test_a_training_outlives_a_database_that_is_away_for_a_moment(place: Place) -> None:
    id = place.add(resnet8(), architecture=None, steps=30)
    away, real = iter([True, False] * 1000), jobs.report_progress

    def report(*args: Any, **kwargs: Any) -> None:
        if next(away):
            raise Away
        real(*args, **kwargs)

    with patch.object(jobs, "report_progress", report), patch.object(jobs, "finish", flaky(jobs.finish)):
        place.worker.work()
    assert place.job(id).state == "succeeded"
    with place.database.read() as session:
        events = jobs.events(session, id, after=0, limit=1000)
    assert [event.kind for event in events].count("metrics") >= 1


def flaky(real: Callable[..., None]) -> Callable[..., None]:
    """Fails once."""
    calls: list[int] = []

    def write(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise Away
        real(*args, **kwargs)

    return write


@pytest.mark.usefixtures("_quick_pulse")
def test_a_worker_stops_while_it_still_searches_paths(place: Place) -> None:
    id = place.add(resnet8(), architecture=None)
    started = Event()

    def cancellation(pulse: lease.Pulse) -> None:
        started.set()
        place.stopping.set()
        real(pulse)

    real = lease.Pulse.cancellation
    with (
        patch.object(lease.Pulse, "cancellation", cancellation),
        patch("nern.training.phases.reconstruction.reconstruct", side_effect=AssertionError),
    ):
        place.worker.work()
    assert started.is_set()
    assert (place.job(id).state, place.job(id).attempt) == ("queued", 0)


def test_events_stay_few_however_many_steps(place: Place) -> None:
    id = place.add(resnet8(), architecture=None, steps=2000, hidden=2, kernel_batch=16)
    place.worker.work()
    with place.database.read() as session:
        events = jobs.events(session, id, after=0, limit=1000)
    assert len([event for event in events if event.kind == "progress"]) <= 101
    assert 5 <= len([event for event in events if event.kind == "metrics"]) <= 6


def test_between_evaluations_the_row_is_written_now_and_then_and_not_at_every_step(place: Place) -> None:
    place.add(resnet8(), architecture=None, steps=300, hidden=2, kernel_batch=16)
    with (
        patch.object(reporting, "REPORT_SECONDS", inf),
        patch.object(jobs, "report_progress", wraps=jobs.report_progress) as written,
    ):
        place.worker.work()
    # The evaluations are five, and one more if the last step is not one of them.
    assert 5 <= written.call_count <= 6
