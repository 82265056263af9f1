"""As deployed: PostgreSQL, Redis, a Celery worker process, the API in a process of its own."""

from pathlib import Path

import httpx
import pytest

from service.store import migrate
from service.store.database import Database
from tests.e2e.flow import main_job, ok
from tests.support.networks import resnet8, saved
from tests.support.processes import celery_worker, serving
from tests.support.servers import redis_server
from tests.support.waiting import DEADLINE_SECONDS, until


@pytest.fixture
def settings(postgres_url: str, redis_url: str) -> dict[str, str]:
    database = Database(postgres_url)
    migrate.upgrade(database)
    database.close()
    return {"NERN_DATABASE_URL": postgres_url, "NERN_BROKER_URL": redis_url, "NERN_SWEEP_SECONDS": "0.5"}


def test_the_main_job(tmp_path: Path, settings: dict[str, str]) -> None:
    with celery_worker(tmp_path, settings), serving(tmp_path, settings) as (url, _):
        main_job(url)


def test_a_worker_that_is_told_to_stop_gives_its_job_back(tmp_path: Path, settings: dict[str, str]) -> None:
    with serving(tmp_path, settings) as (url, _), httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client:

        def job() -> dict[str, object]:
            return dict(ok(client.get(f"/v1/jobs/{id}")))

        checkpoint = ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}))
        id = ok(client.post("/v1/jobs", json={"checkpoint_id": checkpoint["id"], "steps": 10_000_000}))["id"]
        with celery_worker(tmp_path, settings):
            until(lambda: job()["progress"], what="progress")
        given_back = job()
        assert (given_back["state"], given_back["attempt"]) == ("queued", 0)


def test_a_job_waits_while_the_broker_is_away(tmp_path: Path, settings: dict[str, str]) -> None:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as gone:
        pass
    with (
        serving(tmp_path, {**settings, "NERN_BROKER_URL": gone}) as (url, _),
        httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client,
    ):
        checkpoint = ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}))
        assert ok(client.post("/v1/jobs", json={"checkpoint_id": checkpoint["id"]}))["state"] == "queued"
        not_ready = client.get("/readyz")
        assert not_ready.status_code == 503
        assert not_ready.json()["checks"]["broker"] != "ok"
