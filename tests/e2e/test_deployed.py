"""As deployed: PostgreSQL, Redis, a Celery worker process, the API in a process of its own."""

import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from service.store import migrate
from service.store.database import Database
from tests.e2e.flow import main_job, ok
from tests.support.metrics import Scrape
from tests.support.networks import resnet8, saved
from tests.support.processes import celery_worker, environment, serving, with_clock_ahead
from tests.support.servers import free_port, own_redis
from tests.support.tus import RESUMABLE, create, offset
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


def test_a_job_is_worked_on_without_the_broker(tmp_path: Path, settings: dict[str, str]) -> None:
    with own_redis(tmp_path / "redis") as gone:
        pass
    alone = {**settings, "NERN_BROKER_URL": gone}
    with (
        serving(tmp_path, alone) as (url, _),
        httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client,
        celery_worker(tmp_path, alone) as worker,
    ):
        checkpoint = ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}))
        job = ok(client.post("/v1/jobs", json={"checkpoint_id": checkpoint["id"], "steps": 20, "hidden": 8}))
        until(lambda: ok(client.get(f"/v1/jobs/{job['id']}"))["state"] == "succeeded", what="the job")
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["broker"] != "ok"
        worker.send_signal(signal.SIGTERM)
        worker.wait(DEADLINE_SECONDS)


def test_a_broker_that_hangs_holds_nothing_up(tmp_path: Path, settings: dict[str, str]) -> None:
    with own_redis(tmp_path / "redis") as redis_url:
        hanging = {**settings, "NERN_BROKER_URL": redis_url}
        with (
            serving(tmp_path, hanging) as (url, _),
            httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client,
            celery_worker(tmp_path, hanging) as worker,
            redis.Redis.from_url(redis_url) as broker,
        ):
            checkpoint = ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}))
            until(lambda: "ready." in (tmp_path / "celery.log").read_text(), what="a worker that is connected")
            process = psutil.Process(broker.info("server")["process_id"])
            process.suspend()
            try:
                body = {"checkpoint_id": checkpoint["id"], "steps": 20, "hidden": 8}
                made = [ok(client.post("/v1/jobs", json={**body, "seed": seed}))["id"] for seed in range(20)]
                until(lambda: ok(client.get(f"/v1/jobs/{made[-1]}"))["state"] == "succeeded", what="the jobs")
                worker.send_signal(signal.SIGTERM)
                assert worker.wait(DEADLINE_SECONDS) == 0
            finally:
                process.resume()


def test_the_broker_wakes_an_idle_worker(tmp_path: Path, settings: dict[str, str]) -> None:
    """With so long a pause between two looks, only a message can have woken the worker."""
    rarely = {**settings, "NERN_POLL_SECONDS": str(10 * DEADLINE_SECONDS)}
    with (
        serving(tmp_path, settings) as (url, _),
        httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client,
        celery_worker(tmp_path, rarely),
    ):
        checkpoint = ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}))
        until(lambda: "looks for jobs" in (tmp_path / "celery.log").read_text(), what="a worker that has looked")
        job = ok(client.post("/v1/jobs", json={"checkpoint_id": checkpoint["id"], "steps": 20, "hidden": 8}))
        until(lambda: ok(client.get(f"/v1/jobs/{job['id']}"))["state"] == "succeeded", what="the job")


def test_a_worker_whose_training_dies_goes_on(tmp_path: Path, settings: dict[str, str]) -> None:
    quick = {**settings, "NERN_LEASE_SECONDS": "3", "NERN_SNAPSHOT_SECONDS": "0.2"}
    port, worker_port = free_port(), free_port()
    with (
        serving(tmp_path, {**quick, "NERN_METRICS_PORT": str(port)}) as (url, _),
        httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client,
        celery_worker(tmp_path, {**quick, "NERN_METRICS_PORT": str(worker_port)}) as worker,
    ):
        checkpoint = ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}))
        body = {"checkpoint_id": checkpoint["id"], "steps": 2000, "hidden": 8, "kernel_batch": 256}
        id = ok(client.post("/v1/jobs", json=body))["id"]
        until(lambda: (ok(client.get(f"/v1/jobs/{id}"))["progress"] or {}).get("step", 0) > 500, what="progress")
        assert Scrape(worker_port).value("nern_job_queue_seconds_count") == 1
        [training] = psutil.Process(worker.pid).children()
        training.kill()
        until(lambda: ok(client.get(f"/v1/jobs/{id}"))["state"] == "succeeded", what="the job")
        events = ok(client.get(f"/v1/jobs/{id}/events", params={"limit": 200}))["items"]
        assert [event["data"]["step"] > 0 for event in events if event["kind"] == "resumed"] == [True]
        # The next training process has the same port, and counts anew.
        until(
            lambda: Scrape(worker_port).value("nern_attempts_total", outcome="succeeded") == 1, what="the count of the attempt"
        )
        assert Scrape(worker_port).value("nern_job_queue_seconds_count") == 0
        assert Scrape(port).value("nern_lease_expiries_total", state="queued") == 1


def test_a_worker_that_can_never_work_ends(tmp_path: Path, settings: dict[str, str]) -> None:
    """Whoever runs the process must see it: here, the GPU that the setting names is not there."""
    with celery_worker(tmp_path, {**settings, "NERN_DEVICE": "cuda:99"}) as worker:
        assert worker.wait(DEADLINE_SECONDS) != 0
    text = (tmp_path / "celery.log").read_text()
    assert "NERN_DEVICE is cuda:99, but torch finds" in text
    assert "3 times in a row; this worker ends" in text


def test_a_replica_whose_clock_is_wrong_goes_by_that_of_the_database(tmp_path: Path, settings: dict[str, str]) -> None:
    with (
        serving(tmp_path, {**settings, **with_clock_ahead(100 * 3600)}) as (url, _),
        httpx.Client(base_url=url, timeout=DEADLINE_SECONDS, headers=RESUMABLE) as client,
    ):
        created = create(client, 10)
        assert created.status_code == 201, created.text
        left = parsedate_to_datetime(created.headers["upload-expires"]) - datetime.now(UTC)
        assert left <= timedelta(hours=24)
        assert offset(client, created.headers["location"]) == 0


def test_a_celery_worker_without_a_broker_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "celery", "-A", "worker.celery", "worker"]
    ended = subprocess.run(
        command, env=environment({}), cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert ended.returncode != 0
    assert "NERN_BROKER_URL is not set" in ended.stderr
