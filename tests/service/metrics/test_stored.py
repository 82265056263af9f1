"""What the database knows is read from it for each scrape, seldom, and never makes a scrape fail."""

import socket
import threading
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
from sqlalchemy import event, update

from service.metrics import stored
from service.metrics.stored import DatabaseMetrics
from service.settings import Settings
from service.store import jobs, watched, workers
from service.store.database import Database
from service.store.tables import Job, JobSnapshot, Worker
from tests.support import rows
from tests.support.metrics import scraping
from tests.support.waiting import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def queue(database: Database, count: int, created_at: datetime) -> list[str]:
    checkpoint = rows.checkpoint()
    made = [rows.job(checkpoint.id, created_at=created_at) for _ in range(count)]
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        for job in made:
            jobs.add(session, job)
    return [job.id for job in made]


def claim(database: Database, now: datetime, holder: str = "w", device: str = "cuda:1") -> jobs.Lease:
    with database.write() as session:
        lease = jobs.claim(session, holder=holder, now=now, lease=MINUTE, where={"device": device})
    assert lease
    return lease


def figures(database: Database, now: datetime, limit: int = 10) -> watched.Figures:
    with database.read() as session:
        return watched.figures(session, now, limit=limit)


def test_jobs_and_workers_are_counted_by_device(database: Database) -> None:
    queue(database, 4, NOW)
    claim(database, NOW, holder="a", device="cuda:1")
    claim(database, NOW, holder="b", device="cpu")
    with database.write() as session:
        for id, device, fault, seen in (("a", "cuda:1", None, 0), ("b", "cpu", None, 0), ("c", "cuda", None, 0),
                                        ("d", "cpu", "the disk is full", 0), ("e", "cpu", None, 60)):  # fmt: skip
            about = {"device": device, "host": "h", "process": 1}
            seen_at = NOW - timedelta(seconds=seen)
            workers.write(
                session,
                Worker(id=id, about=about, free_memory=1, fault=fault, ended=None, started_at=NOW, seen_at=seen_at),
            )
    found = figures(database, NOW)
    assert (found.queued, found.paused, found.running) == (2, 0, {"cuda": 1, "cpu": 1})
    # The worker "e" has been silent for too long.
    assert found.workers == {("cuda", "busy"): 1, ("cpu", "busy"): 1, ("cuda", "idle"): 1, ("cpu", "faulty"): 1}


def test_a_job_waits_since_it_came_to_the_queue(database: Database) -> None:
    assert figures(database, NOW).oldest_seconds == 0
    [old] = queue(database, 1, NOW)
    assert figures(database, NOW + 5 * MINUTE).oldest_seconds == 300
    lease = claim(database, NOW + 5 * MINUTE)
    assert figures(database, NOW + 6 * MINUTE).oldest_seconds == 0
    with database.write() as session:
        jobs.give_back(session, lease, now=NOW + 60 * MINUTE)
    queue(database, 1, NOW + 62 * MINUTE)
    # It trained for an hour. That was no wait.
    assert figures(database, NOW + 63 * MINUTE).oldest_seconds == 180
    with database.write() as session:
        jobs.request_cancel(session, old, NOW + 63 * MINUTE)
    assert figures(database, NOW + 63 * MINUTE).oldest_seconds == 60


def test_a_training_is_unsaved_since_its_snapshot_or_its_claim(database: Database) -> None:
    queue(database, 1, NOW)
    lease = claim(database, NOW)
    with database.write() as session:
        session.execute(update(Job).values(progress={"fraction": 0.5, "steps_per_second": 7.0}, metrics={"distillation": 0.25}))
    [training] = figures(database, NOW + 2 * MINUTE).trainings
    assert (training.job_id, training.attempt, training.unsaved_seconds) == (lease.job_id, 1, 120)
    with database.write() as session:
        for step, at in ((1, NOW + MINUTE), (2, NOW + 2 * MINUTE)):
            session.add(JobSnapshot(job_id=lease.job_id, fence=1, step=step, sha256="", size=1, metrics={}, created_at=at))
    [training] = figures(database, NOW + 5 * MINUTE).trainings
    assert training.unsaved_seconds == 180
    # The next attempt has lost nothing yet.
    with database.write() as session:
        jobs.give_back(session, lease, now=NOW + 60 * MINUTE)
    claim(database, NOW + 60 * MINUTE)
    [training] = figures(database, NOW + 61 * MINUTE).trainings
    assert training.unsaved_seconds == 60


def test_every_figure_is_a_metric(database: Database, settings: Settings) -> None:
    queue(database, 3, NOW)
    lease = claim(database, NOW)
    shown = {"progress": {"fraction": 0.5, "steps_per_second": 7.0}, "metrics": {"distillation": 0.25, "accuracy": 0.9}}
    with database.write() as session:
        session.execute(update(Job).where(Job.id == lease.job_id).values(**shown))
    with patch.object(stored, "now", lambda session: NOW + MINUTE), scraping(settings, DatabaseMetrics(database)) as scrape:
        read = scrape()
    assert read.value("nern_database_up") == 1
    assert read.value("nern_jobs", state="queued", device="") == 2
    assert read.value("nern_jobs", state="running", device="cuda") == 1
    assert ("nern_jobs", frozenset({("state", "running"), ("device", "cpu")})) in read.series
    assert read.value("nern_oldest_queued_job_age_seconds") == 60
    assert ("nern_workers", frozenset({("state", "idle"), ("device", "cuda")})) in read.series
    of_job = {name: dict(labels) for name, labels in read.series if dict(labels).get("job_id")}
    assert {labels["job_id"] for labels in of_job.values()} == {lease.job_id}
    id = lease.job_id
    values = {name: read.value(name, job_id=id) for name in of_job if name != "nern_job_loss"}
    assert values == {
        "nern_job_attempt": 1, "nern_job_progress_ratio": 0.5, "nern_job_steps_per_second": 7, "nern_job_unsaved_seconds": 60
    }  # fmt: skip
    losses = {dict(labels)["loss"]: value for (name, labels), value in read.series.items() if name == "nern_job_loss"}
    assert losses == {"distillation": 0.25}


@pytest.fixture
def settings() -> Settings:
    return Settings()


def test_a_thousand_trainings_do_not_make_a_thousand_series(database: Database) -> None:
    queue(database, 8, NOW)
    leases = [claim(database, NOW + MINUTE * number) for number in range(8)]
    found = figures(database, NOW + 10 * MINUTE, limit=3)
    assert [training.job_id for training in found.trainings] == [lease.job_id for lease in leases[:-4:-1]]
    assert found.running == {"cuda": 8}


def test_scrapes_do_not_load_the_database(database: Database, settings: Settings) -> None:
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    moment = 1000.0
    collector = DatabaseMetrics(database, seconds=lambda: moment)
    with scraping(settings, collector) as scrape:
        scrape()
        once = len(statements)
        assert once > 0
        for _ in range(20):
            assert scrape().value("nern_database_up") == 1
        assert len(statements) == once
        moment += stored.KEPT_SECONDS
        scrape()
        assert len(statements) == 2 * once


def test_a_database_that_hangs_does_not_hold_up_a_scrape(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # It accepts connections, and says nothing.
        database = Database(f"postgresql://nern@127.0.0.1:{silent.getsockname()[1]}/nern?connect_timeout=600")
        moment = 1000.0
        collector = DatabaseMetrics(database, seconds=lambda: moment)
        with patch.object(stored, "ANSWER_SECONDS", 0.05), scraping(settings, collector) as scrape:
            for _ in range(3):
                moment += stored.KEPT_SECONDS
                read = scrape()
                assert read.series[("nern_database_up", frozenset())] == 0
                assert "nern_jobs" not in read.families
                assert "nern_http_requests_in_progress" in read.families
        # One read is under way, and no other was begun.
        assert [thread.name for thread in threading.enumerate()].count("metrics") == 1
        silent.settimeout(600)
        silent.accept()[0].close()
        until(lambda: not collector._reading.is_alive(), what="the end of the read")
        database.close()


def test_the_metrics_come_back_with_the_database(database: Database, settings: Settings) -> None:
    moment = 1000.0
    collector = DatabaseMetrics(database, seconds=lambda: moment)
    with scraping(settings, collector) as scrape:
        with patch.object(watched, "figures", side_effect=RuntimeError("the database does not answer")):
            assert scrape().value("nern_database_up") == 0
        moment += stored.KEPT_SECONDS
        assert scrape().value("nern_database_up") == 1
