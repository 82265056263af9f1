"""The commands of docs/operations.md make a backup, and bring a service back from it."""

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import psycopg
import pytest

from service.api.app import create_app
from service.inspection import process
from service.settings import Settings
from service.store import ids, jobs, predictors
from service.store.blobs import Blobs
from service.store.database import now
from service.store.tables import Predictor
from tests.support import migrated
from tests.support.calls import is_problem
from tests.support.networks import resnet8
from tests.support.place import Place
from tests.support.processes import environment
from tests.support.served import served
from tests.support.servers import postgres_tools
from tests.support.stored import embedded_database, store_predictor
from tests.support.waiting import DEADLINE_SECONDS, until
from worker.attempt import Attempt
from worker.run import Worker

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"

STEPS, STOPPED_AFTER = 12, 5


def commands(section: str) -> str:
    """The commands in a section of the document."""
    text = OPERATIONS.read_text().partition(f"\n### {section}\n")[2].partition("\n##")[0]
    [block] = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return str(block)


def run(section: str, variables: dict[str, str], tools: Path | None) -> None:
    path = os.pathsep.join([*([str(tools)] if tools else []), os.environ["PATH"]])
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands(section)],
        env={**environment(variables), "PATH": path},
        timeout=DEADLINE_SECONDS,
        check=True,
    )


class Original:
    """A service with a predictor, and with a job whose worker has made a snapshot and is at work."""

    def __init__(self, folder: Path, database_url: str | None) -> None:
        self.place = Place(folder, database_url)
        done = self.place.add(resnet8(), architecture=None)
        assert self.place.worker.work()
        self.predictor = self.place.job(done).predictor_id or ""
        self.job = self.place.add(resnet8(), architecture=None, steps=STEPS)
        self._stop_in_the_middle()
        with self.place.database.write() as session:
            # Another worker goes on with the job.
            jobs.claim(session, holder=ids.new_id(), now=now(session), lease=timedelta(seconds=1))
        assert self.place.job(self.job).state == "running"

    @property
    def artefact(self) -> bytes:
        with self.place.database.read() as session:
            size = session.get_one(Predictor, self.predictor).size
            return predictors.read(session, self.predictor, 0, size)

    def _stop_in_the_middle(self) -> None:
        real = Attempt._after_step

        def after_step(attempt: Attempt, progress: Any) -> None:
            real(attempt, progress)
            if progress.step >= STOPPED_AFTER:
                self.place.stopping.set()

        with patch.object(Attempt, "_after_step", after_step):
            assert self.place.worker.work()


@pytest.fixture(params=["embedded", "deployed"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def restored(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Original, Settings]]:
    """A service, and the settings of another one that has been restored from its backup."""
    backup, old, new = tmp_path / "backup", tmp_path / "old", tmp_path / "new"
    backup.mkdir()
    urls: tuple[str | None, str | None] = (None, None)
    tools = None
    if kind == "deployed":
        server = request.getfixturevalue("postgres_server")
        tools = postgres_tools(server)
        database = migrated.postgresql(server, f"old_{uuid4().hex}")
        database.close()
        name = f"new_{uuid4().hex}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        urls = (database.libpq_url, migrated.url_of(server, name))
    original = Original(old, urls[0])
    variables = [
        {"BACKUP": str(backup), "NERN_DATA_DIR": str(folder), "NERN_BLOB_URL": (folder / "blobs").as_uri()}
        | ({"NERN_DATABASE_URL": url} if url else {})
        for folder, url in zip((old, new), urls, strict=True)
    ]
    run(f"Back up, {kind}", variables[0], tools)
    run(f"Restore, {kind}", variables[1], tools)
    settings = Settings(data_dir=new, database_url=urls[1], lease_seconds=1, sweep_seconds=0.1, threads=1, inspectors=0)
    yield original, settings
    original.place.close()


@pytest.fixture(autouse=True)
def _warm_inspectors(inspection_command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", inspection_command)


def test_a_restored_service_has_everything_and_goes_on(restored: tuple[Original, Settings], tmp_path: Path) -> None:
    original, settings = restored
    # It takes no blob store for its own that is empty, or that of another service.
    for name, owner in [("empty", None), ("strange", ids.new_id())]:
        store = tmp_path / name
        store.mkdir()
        if owner:
            Blobs(store.as_uri()).mark(owner)
        states = readiness(settings.model_copy(update={"blob_url": store.as_uri()}))
        assert (states["database"], states["blobs"]) == ("ok", "WrongBlobStore")
    with served(create_app(settings)) as client:
        ready = client.get("/readyz")
        assert ready.status_code == 200, ready.text
        assert client.get(f"/v1/predictors/{original.predictor}/file").content == original.artefact

        def job() -> dict[str, Any]:
            return dict(client.get(f"/v1/jobs/{original.job}").json())

        # The worker that held the job is not there any more.
        until(lambda: job()["state"] == "queued", what="the end of the lease")
        worker = Worker(settings, Event())
        assert worker.work()
        worker._database.close()
        assert job()["state"] == "succeeded", job()["error"]
        events = client.get(f"/v1/jobs/{original.job}/events", params={"limit": 200}).json()["items"]
        [resumed] = [event["data"] for event in events if event["kind"] == "resumed"]
        assert (resumed["step"] >= STOPPED_AFTER, resumed["refused"]) == (True, [])


def test_a_database_without_its_blobs_serves_its_predictors(tmp_path: Path) -> None:
    """The blobs are lost for good. The operator makes an empty blob store that of the database."""
    settings = Settings(data_dir=tmp_path / "data", inspectors=0)
    with embedded_database(settings) as database:
        predictor = store_predictor(database, resnet8())
        with database.read() as session:
            checkpoint = session.get_one(Predictor, predictor).checkpoint_id
    assert readiness(settings)["blobs"] == "WrongBlobStore"
    run("Without the blobs", {"NERN_DATA_DIR": str(settings.data_dir), "BLOBS": str(settings.data_dir / "blobs")}, None)
    with served(create_app(settings)) as client:
        assert client.get("/readyz").status_code == 200
        assert client.get(f"/v1/predictors/{predictor}/weights").status_code == 200
        assert is_problem(client.get(f"/v1/checkpoints/{checkpoint}/file"), 410, "lost")


def readiness(settings: Settings) -> dict[str, str]:
    """What a process with these settings says about its parts."""
    app = create_app(settings)
    states: dict[str, str] = asyncio.run(app.state.context.readiness.states())
    app.state.context.database.close()
    return states
