"""Every setting has an effect. A new one needs a test, here or where its part is tested, and an entry in `EFFECTS`."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import patch

import httpx
import psutil
import pytest
import torch

from service.api.app import create_app
from service.inspection import process
from service.jobs.sweep import sweep, sweep_forever
from service.settings import Settings, unknown
from service.store import jobs
from service.store.database import Database
from service.store.tables import Job
from tests.support import rows
from tests.support.calls import files, is_problem
from tests.support.networks import resnet8, saved
from tests.support.place import Place
from tests.support.processes import environment, serving
from tests.support.rows import NOW
from tests.support.servers import free_port
from tests.support.stored import embedded_database
from tests.support.waiting import DEADLINE_SECONDS, until
from worker import __main__ as worker_command
from worker.run import Worker

TESTS = Path(__file__).parents[1]

EFFECTS = {
    "log_format": "service/logs/test_configuration.py::test_the_settings_decide_about_form_and_level",
    "log_level": "service/logs/test_configuration.py::test_the_settings_decide_about_form_and_level",
    "upload_expiry_hours": "service/uploads/test_uploads.py::test_uploads_expire_after_the_time_that_is_set_and_are_removed",
    "host": "service/test_settings.py::test_host_and_port_are_where_the_service_listens",
    "port": "service/test_settings.py::test_host_and_port_are_where_the_service_listens",
    "api_keys": "e2e/test_embedded.py::test_api_keys_open_what_their_scope_says",
    "data_dir": "e2e/test_embedded.py::test_data_stays_below_the_data_directory",
    "database_url": "e2e/test_processors.py::test_two_kinds_of_nodes_share_no_etag_of_rebuilt_weights",
    "broker_url": "e2e/test_deployed.py::test_the_broker_wakes_an_idle_worker",
    "blob_url": "service/test_settings.py::test_blob_url_is_where_uploads_are_kept",
    "max_upload_bytes": "service/api/test_uploads.py::test_a_body_of_unknown_length_is_limited_too",
    "max_body_bytes": "service/api/test_contract.py::test_a_chunked_body_over_the_limit",
    "device": "worker/test_run.py::test_a_device_that_is_not_there_is_refused_before_any_job_is_claimed",
    "threads": "service/test_settings.py::test_threads_are_those_of_a_training",
    "inspect_seconds": "service/test_settings.py::test_inspect_seconds_limit_the_reading_of_a_file",
    "inspectors": "service/test_settings.py::test_inspectors_are_the_processes_that_wait",
    "lease_seconds": "service/test_settings.py::test_lease_seconds_are_the_time_of_a_silent_worker",
    "snapshot_seconds": "worker/test_snapshots.py::test_snapshots_are_ten_seconds_apart_or_take_two_percent_of_the_time",
    "max_attempts": "service/test_settings.py::test_max_attempts_end_a_job",
    **dict.fromkeys(
        ("keep_events_days", "keep_jobs_days", "keep_snapshots_days"),
        "service/jobs/test_cleanup.py::test_keep_days_are_how_long_each_is_kept",
    ),
    "max_connections": "service/test_server.py::test_the_service_has_a_limit_of_connections",
    "metrics_port": "e2e/test_embedded.py::test_the_main_job",
    "owner_requests_per_minute": "service/api/test_limits.py::test_requests_are_limited_for_each_owner",
    "owner_waiting_jobs": "service/api/test_limits.py::test_waiting_jobs_are_limited_for_each_owner",
    "owner_running_jobs": "service/api/test_limits.py::test_running_jobs_are_limited_for_each_owner",
    "owner_stored_bytes": "service/api/test_limits.py::test_stored_bytes_are_limited_for_each_owner",
    "webhook_networks": "service/webhooks/test_sender.py::test_an_address_is_checked_again_when_a_message_is_sent",
    "poll_seconds": "service/test_settings.py::test_poll_seconds_are_the_pause_of_a_worker_and_of_a_stream",
    "sweep_seconds": "service/test_settings.py::test_sweep_seconds_are_the_pause_between_sweeps",
}


def test_every_setting_has_a_test_of_its_effect() -> None:
    assert EFFECTS.keys() == Settings.model_fields.keys()
    for test in EFFECTS.values():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (TESTS / file).read_text(), test


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("NERN_LEASE_SECOND", "; did you mean NERN_LEASE_SECONDS?"),
        ("NERN_APIKEYS", "; did you mean NERN_API_KEYS?"),
        ("NERN_DATABASE_URI", "; did you mean NERN_DATABASE_URL?"),
        ("NERN_QQQQ", ""),
    ],
)
def test_a_mistyped_setting_is_named(name: str, near: str) -> None:
    assert unknown(["NERN_PORT", name]) == [f"{name} is no setting{near}"]


@pytest.mark.parametrize("command", [["service.cli", "serve"], ["worker"], ["celery", "-A", "worker.celery", "worker"]])
def test_a_mistyped_setting_keeps_a_process_from_starting(tmp_path: Path, command: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-m", *command],
        env=environment({"NERN_LEASE_SECOND": "1", "NERN_DATA_DIR": str(tmp_path / "data"), "NERN_BROKER_URL": "redis://127.0.0.1:1"}),
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode != 0
    assert "NERN_LEASE_SECOND is no setting; did you mean NERN_LEASE_SECONDS?" in ended.stderr
    assert not (tmp_path / "data").exists()


def test_variables_of_kubernetes_and_of_the_tests_are_no_mistyped_settings() -> None:
    names = (
        "NERN_API_SERVICE_HOST NERN_API_SERVICE_PORT NERN_API_SERVICE_PORT_HTTP NERN_API_PORT NERN_API_PORT_8000_TCP "
        "NERN_API_PORT_8000_TCP_ADDR NERN_TEST_DATA NERN_TEST_POSTGRES_URL NERN_PYTHON HOME XNERN_A"
    )
    assert unknown([*names.split(), *(f"NERN_{name.upper()}" for name in Settings.model_fields)]) == []


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", inspectors=0)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    with embedded_database(settings) as database:
        yield database


def with_values(settings: Settings, **values: Any) -> Settings:
    return settings.model_copy(update=values)


def upload(settings: Settings) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))})

    return asyncio.run(send())


def test_host_and_port_are_where_the_service_listens(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, {"NERN_HOST": "127.0.0.2", "NERN_PORT": str(port)}, "--no-worker") as (url, process):
        assert url == f"http://127.0.0.2:{port}"
        listening = [connection.laddr for connection in psutil.Process(process.pid).net_connections() if not connection.raddr]
        assert ("127.0.0.2", port) in listening
        assert not [address for address in listening if address and address[0] != "127.0.0.2"]


@pytest.mark.usefixtures("database")
def test_blob_url_is_where_uploads_are_kept(settings: Settings, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert upload(with_values(settings, blob_url=elsewhere.as_uri())).status_code == 201
    assert len(files(elsewhere)) == 2
    assert not (settings.data_dir / "blobs").exists()


def test_threads_are_those_of_a_training(settings: Settings, database: Database) -> None:
    before = torch.get_num_threads()
    try:
        Worker(with_values(settings, threads=before + 2), stopping=Event())
        assert torch.get_num_threads() == before + 2
    finally:
        torch.set_num_threads(before)


# Says that it waits for a file, and never reads one.
IDLE = (sys.executable, "-I", "-c", "import os, signal; os.write(0, b'.'); signal.pause()")


@pytest.mark.usefixtures("database")
def test_inspect_seconds_limit_the_reading_of_a_file(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", IDLE)
    refused = upload(with_values(settings, inspect_seconds=1))
    assert is_problem(refused, 422, "too-demanding", "longer than 1 seconds")


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("count", [0, 1, 3])
def test_inspectors_are_the_processes_that_wait(settings: Settings, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(process, "COMMAND", IDLE)
    app = create_app(with_values(settings, inspectors=count))

    def waiting() -> int:
        return len(psutil.Process().children()) - before

    async def run() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.to_thread(until, lambda: waiting() == count)

    before = len(psutil.Process().children())
    asyncio.run(run())
    assert waiting() == 0


def test_lease_seconds_are_the_time_of_a_silent_worker(tmp_path: Path) -> None:
    place = Place(tmp_path / "data")
    id = place.add(resnet8(), architecture=None)
    started = datetime.now(UTC)
    with (
        patch("worker.run.Attempt.run", side_effect=SystemExit),
        pytest.raises(SystemExit),
    ):
        Worker(with_values(place.settings, lease_seconds=1000), stopping=Event()).work()
    lease = (place.job(id).lease_expires_at or NOW) - started
    assert 999 < lease.total_seconds() < 1000 + DEADLINE_SECONDS
    place.database.close()


@pytest.mark.parametrize(("attempts", "state"), [(1, "failed"), (2, "queued")])
def test_max_attempts_end_a_job(settings: Settings, database: Database, attempts: int, state: str) -> None:
    checkpoint = rows.checkpoint()
    job = rows.job(checkpoint.id)
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        jobs.add(session, job)
        assert jobs.claim(session, holder="test", now=NOW, lease=timedelta(seconds=1))
    sweep(database, with_values(settings, max_attempts=attempts))
    with database.read() as session:
        assert session.get_one(Job, job.id).state == state


class Pauses:
    """Stands for an event that nobody sets: remembers how long it was waited for, and is set after the second wait."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def is_set(self) -> bool:
        return len(self.seconds) == 2

    def clear(self) -> None:
        pass

    def wait(self, seconds: float) -> None:
        self.seconds.append(seconds)


def worker_pauses(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of the first two pauses of a worker."""
    pauses = Pauses()
    monkeypatch.setenv("NERN_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("GOMP_SPINCOUNT", "1")
    monkeypatch.setattr(sys, "argv", ["worker"])
    with (
        patch("worker.__main__.Event", lambda: pauses),
        patch("worker.__main__.signal.signal"),
        patch("worker.__main__.logging.basicConfig"),
    ):
        worker_command.main()
    return pauses.seconds


@pytest.mark.usefixtures("database")
def test_poll_seconds_are_the_pause_of_a_worker_and_of_a_stream(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_POLL_SECONDS", "7")
    assert worker_pauses(settings, monkeypatch) == [7, 7]

    assert stream_looks(settings, poll_seconds=10 * DEADLINE_SECONDS, enough=2, quiet_periods=20) == 1
    assert stream_looks(settings, poll_seconds=0.01, enough=3) == 3


def stream_looks(settings: Settings, *, poll_seconds: float, enough: int, quiet_periods: int | None = None) -> int:
    """How often the feed of a job without events looks for some: until that is enough, or for so many quiet periods."""
    followed = create_app(with_values(settings, poll_seconds=poll_seconds)).state.context.feed
    looks: list[int] = []

    def find(known: dict[str, int | None]) -> dict[str, Any]:
        looks.append(1)
        return {id: (0, False, []) for id in known}

    async def follow() -> None:
        with patch.object(followed, "_find", find):
            async with aclosing(followed.follow("job", 0, quiet_seconds=0.02)) as stream:
                quiet = 0
                async for _ in stream:
                    quiet += 1
                    if len(looks) >= enough or quiet == quiet_periods:
                        return

    asyncio.run(asyncio.wait_for(follow(), DEADLINE_SECONDS))
    return min(len(looks), enough)


def test_a_worker_outlives_a_database_that_does_not_answer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.data_dir.mkdir()  # and no tables
    assert worker_pauses(settings, monkeypatch) == [settings.poll_seconds] * 2


def sweep_pauses(settings: Settings) -> list[float]:
    """The seconds of the first three pauses of the sweep."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise asyncio.CancelledError

    database = Database(settings.database)
    with patch("service.jobs.sweep.asyncio.sleep", sleep), pytest.raises(asyncio.CancelledError):
        asyncio.run(sweep_forever(database, settings))
    database.close()
    return slept


@pytest.mark.usefixtures("database")
def test_sweep_seconds_are_the_pause_between_sweeps(settings: Settings) -> None:
    assert sweep_pauses(with_values(settings, sweep_seconds=9, lease_seconds=40)) == [40, 9, 9]


def test_the_first_sweep_after_a_start_or_a_failure_leaves_workers_the_time_of_a_lease(settings: Settings) -> None:
    settings.data_dir.mkdir()  # and no tables
    assert sweep_pauses(with_values(settings, sweep_seconds=9, lease_seconds=40)) == [40, 9, 40]
