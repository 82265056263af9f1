"""What is kept, and for how long."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy.orm import Session

from service import cli
from service.jobs.cleanup import cleanup
from service.settings import Settings
from service.store import blobs, jobs, migrate, retention, snapshots
from service.store.blobs import Blobs
from service.store.database import Database
from service.store.marking import WrongBlobStore, mark
from service.store.tables import Job
from tests.support import rows
from tests.support.calls import files
from tests.support.networks import resnet8
from tests.support.stored import embedded_database, store_predictor

NOTHING = {"events": 0, "jobs": 0, "snapshots": 0, "blobs": 0, "bytes": 0}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    with embedded_database(settings) as database:
        yield database


@pytest.fixture
def store(settings: Settings, database: Database) -> Blobs:
    made = Blobs(settings.blobs)
    mark(database, made)
    return made


def put(store: Blobs, settings: Settings, key: str, *, days: float = 2) -> None:
    """Stores a blob of ten bytes that is so many days old."""
    source = settings.data_dir / "source"
    source.write_bytes(b"0123456789")
    store.upload(key, source)
    then = time.time() - days * 86400
    os.utime(settings.data_dir / "blobs" / key, (then, then))


@pytest.fixture
def ended(database: Database, store: Blobs, settings: Settings) -> Callable[..., str]:
    """Makes a job that failed so many days ago. It has three events and a snapshot."""

    def make(days: float) -> str:
        checkpoint = rows.checkpoint()
        job = rows.job(checkpoint.id)
        then = datetime.now(UTC) - timedelta(days=days)
        with database.write() as session:
            session.add(checkpoint)
            session.flush()
            jobs.add(session, job)
            lease = jobs.claim(session, holder="worker", now=then, lease=timedelta(seconds=30))
            assert lease is not None
            snapshots.add(session, lease, step=5, sha256="", size=10, progress=None, metrics={}, now=then)
            jobs.finish(session, lease, "failed", now=then)
        put(store, settings, blobs.snapshot(job.id, 1, 5))
        return job.id

    return make


def clean(database: Database, store: Blobs, settings: Settings, **values: Any) -> dict[str, int]:
    """Cleans up, and first tells the same with a dry run, which changes nothing."""
    changed = settings.model_copy(update=values)
    told = asdict(cleanup(database, store, changed, dry_run=True))
    done = asdict(cleanup(database, store, changed))
    assert told == done
    assert asdict(cleanup(database, store, changed)) == NOTHING
    return done


def test_by_default_snapshots_events_and_failed_jobs_go_one_after_the_other(
    database: Database, store: Blobs, settings: Settings, ended: Callable[..., str]
) -> None:
    ended(6.9)
    assert clean(database, store, settings) == NOTHING
    ended(7.1)
    assert clean(database, store, settings) == NOTHING | {"snapshots": 1}
    ended(30.1)
    assert clean(database, store, settings) == NOTHING | {"snapshots": 1, "events": 3}
    ended(90.1)
    assert clean(database, store, settings) == NOTHING | {"snapshots": 1, "events": 3, "jobs": 1}
    assert len(files(settings.data_dir / "blobs")) == 1


@pytest.mark.parametrize(
    ("setting", "what"),
    [("keep_snapshots_days", {"snapshots": 1}), ("keep_events_days", {"events": 3}), ("keep_jobs_days", {"jobs": 1})],
)
def test_keep_days_are_how_long_each_is_kept(
    database: Database, store: Blobs, settings: Settings, ended: Callable[..., str], setting: str, what: dict[str, int]
) -> None:
    id = ended(1)
    for_ever = {"keep_snapshots_days": 0, "keep_events_days": 0, "keep_jobs_days": 0}
    assert clean(database, store, settings, **for_ever) == NOTHING
    assert clean(database, store, settings, **{**for_ever, setting: 1.1}) == NOTHING
    assert clean(database, store, settings, **{**for_ever, setting: 0.9}) == NOTHING | what
    with database.read() as session:
        assert (session.get(Job, id) is None) == (setting == "keep_jobs_days")


def test_a_predictor_and_its_job_are_kept(database: Database, store: Blobs, settings: Settings) -> None:
    store_predictor(database, resnet8())
    with database.write() as session:
        for job in session.query(Job):
            job.finished_at = datetime.now(UTC) - timedelta(days=1000)
    assert clean(database, store, settings) == NOTHING


def test_old_blobs_that_no_row_refers_to_are_removed(database: Database, store: Blobs, settings: Settings) -> None:
    checkpoint, gone, dataset = rows.checkpoint(), rows.checkpoint(deleted_at=datetime.now(UTC)), rows.dataset()
    running = rows.job(checkpoint.id, state="running")
    with database.write() as session:
        session.add_all([checkpoint, gone, dataset])
        session.flush()
        session.add(running)
    needed = [
        blobs.checkpoint_tensors(checkpoint.id),
        blobs.dataset_tensors(dataset.id),
        blobs.snapshot(running.id, 1, 1),
    ]
    strays = [
        blobs.checkpoint_file(gone.id),
        blobs.checkpoint_tensors(gone.id),
        blobs.dataset_tensors("nothing"),
        blobs.snapshot("nothing", 1, 1),
        blobs.upload_part("nothing", "part"),
    ]
    for key in (*needed, *strays):
        put(store, settings, key, days=1.1)
    put(store, settings, blobs.checkpoint_file("arriving"), days=0.9)
    assert clean(database, store, settings) == NOTHING | {"blobs": 5, "bytes": 50}
    assert all(store.has(key) for key in (*needed, blobs.checkpoint_file("arriving")))
    assert not any(store.has(key) for key in strays)


def test_nothing_is_removed_from_the_blob_store_of_another_database(
    database: Database, store: Blobs, settings: Settings, tmp_path: Path
) -> None:
    """As with a database that is empty because a setting was forgotten."""
    put(store, settings, blobs.checkpoint_file("needed"), days=100)
    other = Database(f"sqlite:///{tmp_path / 'other.sqlite3'}")
    migrate.upgrade(other)
    for use in (cleanup, lambda *_: mark(other, store)):
        with pytest.raises(WrongBlobStore, match="belongs to another database"):
            use(other, store, settings)
    other.close()
    assert store.has(blobs.checkpoint_file("needed"))


def test_a_job_that_was_retried_meanwhile_keeps_everything(
    database: Database, store: Blobs, settings: Settings, ended: Callable[..., str]
) -> None:
    id = ended(100)
    found = retention.failed_jobs

    def retried(session: Session, **arguments: Any) -> list[str]:
        ids = found(session, **arguments)
        with database.write() as other:
            jobs.retry(other, id, datetime.now(UTC))
        return ids

    with patch.object(retention, "failed_jobs", retried), patch.object(retention, "with_snapshots", return_value=[]):
        removed = cleanup(database, store, settings.model_copy(update={"keep_events_days": 0, "keep_snapshots_days": 0}))
    assert (removed.jobs, removed.snapshots) == (0, 0)
    assert store.has(blobs.snapshot(id, 1, 5))
    with database.read() as session:
        assert session.get_one(Job, id).state == "queued"
        assert len(jobs.events(session, id, after=0, limit=9)) == 4


def test_the_command_tells_what_it_removes(
    database: Database,
    settings: Settings,
    ended: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NERN_DATA_DIR", str(settings.data_dir))
    ended(40)
    cli.main(["cleanup", "--dry-run"])
    assert capsys.readouterr().out == "would be removed: 3 events, 1 snapshots\n"
    cli.main(["cleanup", "--json"])
    assert json.loads(capsys.readouterr().out) == NOTHING | {"events": 3, "snapshots": 1}
    cli.main(["cleanup"])
    assert capsys.readouterr().out == "removed: nothing\n"
