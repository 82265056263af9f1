"""Limits of each owner: requests, jobs, stored bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from service.api.app import create_app
from service.settings import Settings
from service.store import jobs
from service.store.blobs import Blobs
from service.store.database import Database
from service.store.marking import mark
from service.store.tables import Job
from tests.support.calls import NETWORK, files, is_problem, new_job, upload
from tests.support.networks import dataset_file
from tests.support.tus import create
from worker.run import Worker

KEYS = {name: name[0] * 16 for name in ("ours", "theirs")}


@pytest.fixture
def limits(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of a test, given by its parameter."""
    return dict(request.param)


@pytest.fixture
def app(settings: Settings, database: Database, limits: dict[str, Any]) -> FastAPI:
    keys = SecretStr(",".join(f"admin@{name}:{key}" for name, key in KEYS.items()))
    return create_app(settings.model_copy(update={"api_keys": keys, **limits}))


@contextmanager
def sent_by(client: httpx.Client, name: str) -> Iterator[None]:
    """A block in which an owner sends the requests."""
    client.headers["authorization"] = f"Bearer {KEYS[name]}"
    yield


@pytest.mark.parametrize("limits", [{"owner_requests_per_minute": 3}], indirect=True)
def test_requests_are_limited_for_each_owner(client: httpx.Client) -> None:
    with sent_by(client, "ours"):
        answers = [client.get("/v1/jobs") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert is_problem(answers[-1], 429, "too-many-requests", "3 requests a minute")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"requests";q=3;w=60'}
        assert answers[0].headers["ratelimit"] == '"requests";r=2;t=20'
        assert answers[-1].headers["ratelimit"].startswith('"requests";r=0;t=')
        assert client.get("/livez").status_code == 200
        assert "ratelimit" not in client.get("/livez").headers
    with sent_by(client, "theirs"):
        assert client.get("/v1/jobs").status_code == 200
    assert client.get("/v1/jobs", headers={"authorization": "Bearer wrong"}).status_code == 401


@pytest.mark.parametrize("limits", [{"owner_waiting_jobs": 2}], indirect=True)
def test_waiting_jobs_are_limited_for_each_owner(client: httpx.Client) -> None:
    with sent_by(client, "ours"):
        made = [new_job(client, seed=seed) for seed in range(3)]
        assert [answer.status_code for answer in made] == [202, 202, 429]
        assert is_problem(made[-1], 429, "too-many-jobs", "2 jobs that wait")
        assert int(made[-1].headers["retry-after"]) > 0
        client.post(f"/v1/jobs/{made[0].json()['id']}/cancel")
        assert new_job(client, seed=3).status_code == 202
    with sent_by(client, "theirs"):
        assert new_job(client).status_code == 202


@pytest.mark.parametrize("limits", [{"owner_waiting_jobs": 1}], indirect=True)
def test_a_repeated_request_is_no_further_job(client: httpx.Client) -> None:
    with sent_by(client, "ours"):
        body = {"checkpoint_id": upload(client).json()["id"]}
        answers = [client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]


@pytest.mark.parametrize("limits", [{"owner_stored_bytes": int(1.5 * len(NETWORK))}], indirect=True)
def test_stored_bytes_are_limited_for_each_owner(client: httpx.Client, settings: Settings) -> None:
    with sent_by(client, "ours"):
        first = upload(client)
        assert first.status_code == 201
        before = files(settings.data_dir / "blobs")
        refused = [
            client.post("/v1/datasets", files={"file": dataset_file(3000)}),
            create(client, len(NETWORK)),
        ]
        for answer in refused:
            assert is_problem(answer, 413, "quota-exceeded", f"{len(NETWORK)} are")
        assert files(settings.data_dir / "blobs") == before
        assert upload(client).status_code == 200
        assert client.delete(f"/v1/checkpoints/{first.json()['id']}").status_code == 204
        assert create(client, len(NETWORK), content=NETWORK).status_code == 201
    with sent_by(client, "theirs"):
        assert upload(client).status_code == 201


@pytest.mark.parametrize("limits", [{}], indirect=True)
def test_running_jobs_are_limited_for_each_owner(client: httpx.Client, settings: Settings, database: Database) -> None:
    ids = {}
    for name, count in (("ours", 3), ("theirs", 1)):
        with sent_by(client, name):
            priority, few = 5 if name == "ours" else 0, {"steps": 12, "hidden": 8}
            ids[name] = [new_job(client, seed=seed, priority=priority, **few).json()["id"] for seed in range(count)]
    now = datetime.now(UTC)

    def claim() -> str | None:
        with database.write() as session:
            lease = jobs.claim(session, holder="w", now=now, lease=timedelta(hours=1), max_running=2)
        return lease.job_id if lease else None

    assert [claim(), claim()] == ids["ours"][:2]
    # The third job of the first owner has a higher priority, and waits.
    assert [claim(), claim()] == [ids["theirs"][0], None]
    mark(database, Blobs(settings.blobs))
    worker = Worker(settings.model_copy(update={"owner_running_jobs": 2, "threads": 1}), Event())
    assert not worker.work()
    with database.write() as session:
        session.get_one(Job, ids["ours"][0]).state = "cancelled"
    assert worker.work()
    with database.read() as session:
        assert session.get_one(Job, ids["ours"][2]).attempt == 1
