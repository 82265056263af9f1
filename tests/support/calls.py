"""Requests that many tests of the API make, a check for problems, and a way to end a job without a worker."""

from pathlib import Path
from typing import Any

import httpx

from service.store import jobs
from service.store.blobs import MARK
from service.store.database import Database
from service.store.tables import Job
from tests.support.networks import dataset_file, resnet8, saved
from tests.support.rows import NOW

NETWORK = saved(resnet8(channels=3))


DATASET = dataset_file()


def upload(
    client: httpx.Client, content: bytes = NETWORK, name: str = "net.pt", headers: dict[str, str] | None = None
) -> httpx.Response:
    """Uploads a checkpoint in a multipart form."""
    return client.post("/v1/checkpoints", files={"file": (name, content)}, headers=headers)


def new_job(client: httpx.Client, **fields: Any) -> httpx.Response:
    """Asks for a job with these fields, for NETWORK."""
    checkpoint = upload(client).json()["id"]
    return client.post("/v1/jobs", json={"checkpoint_id": checkpoint, **fields})


def is_problem(answer: httpx.Response, status: int, slug: str, named: str = "") -> bool:
    """Asserts that an answer is a problem of this status and slug whose detail holds the text `named`."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "instance"} <= body.keys()
    assert (answer.status_code, body["status"], body["type"]) == (status, status, f"/problems/{slug}"), body
    assert named in body["detail"], body["detail"]
    return True


def files(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, but the mark of a blob store."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != MARK]


def finish(database: Database, id: str, state: Any) -> None:
    """Claims a queued job and ends it in a final state."""
    with database.write() as session:
        session.get_one(Job, id).priority = 100
        session.flush()
        lease = jobs.claim(session, holder="test", now=NOW, lease=NOW - NOW)
        assert lease is not None
        jobs.finish(session, lease, state, now=NOW, error={"type": "t", "detail": "d"})
