"""Requests that many tests of the API make, what an error looks like, and how a job ends without a worker."""

from pathlib import Path
from typing import Any

import httpx

from service.store import jobs
from service.store.database import Database
from tests.support.networks import dataset_file, resnet8, saved
from tests.support.rows import NOW

NETWORK = saved(resnet8(channels=3))


DATASET = dataset_file()


def upload(
    client: httpx.Client, content: bytes = NETWORK, name: str = "net.pt", headers: dict[str, str] | None = None
) -> httpx.Response:
    return client.post("/v1/checkpoints", files={"file": (name, content)}, headers=headers)


def new_job(client: httpx.Client, **fields: Any) -> httpx.Response:
    checkpoint = upload(client).json()["id"]
    return client.post("/v1/jobs", json={"checkpoint_id": checkpoint, **fields})


def is_problem(answer: httpx.Response, status: int, slug: str, named: str = "") -> bool:
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "instance"} <= body.keys()
    assert (answer.status_code, body["status"], body["type"]) == (status, status, f"/problems/{slug}"), body
    assert named in body["detail"], body["detail"]
    return True


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def finish(database: Database, id: str, state: Any) -> None:
    with database.write() as session:
        lease = jobs.claim(session, owner="test", now=NOW, lease=NOW - NOW, prefer=id)
        assert lease is not None
        jobs.finish(session, lease, state, now=NOW, error={"type": "t", "detail": "d"})
