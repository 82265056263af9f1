"""The HTTP contract: workers and the queue."""

from datetime import UTC, datetime, timedelta

import httpx

from service.store import jobs, workers
from service.store.database import Database
from service.store.ids import new_id
from service.store.tables import Worker
from tests.support.calls import new_job

ABOUT = {"host": "node-1", "process": 7, "device": "cuda:1", "device_name": "a GPU", "release": "0.1.0"}


def add(database: Database, *, silent: float = 0, fault: str | None = None) -> str:
    """A worker that has been silent for so many seconds."""
    id, now = new_id(), datetime.now(UTC)
    with database.write() as session:
        workers.write(
            session,
            Worker(
                id=id, about=ABOUT, free_memory=5 * 10**9, fault=fault, started_at=now, seen_at=now - timedelta(seconds=silent)
            ),
        )
    return id


def test_workers_that_are_alive_are_listed_with_their_jobs(client: httpx.Client, database: Database) -> None:
    assert client.get("/v1/workers").json() == []
    busy, broken, _ = add(database), add(database, fault="the disk is full"), add(database, silent=21)
    id = new_job(client).json()["id"]
    assert client.get(f"/v1/jobs/{id}").json()["worker"] is None
    with database.write() as session:
        lease = jobs.claim(session, holder=busy, now=datetime.now(UTC), lease=timedelta(hours=1), where=ABOUT)
        assert lease is not None
        progress = {"phase": "reconstruction", "step": 3, "steps": 9, "fraction": 0.3, "steps_per_second": 1.0}
        jobs.report_progress(
            session, lease, now=datetime.now(UTC), progress=progress, metrics={}, estimated_finish_at=None, kinds=[]
        )
    first, second = client.get("/v1/workers").json()
    assert {name: first[name] for name in ABOUT} == ABOUT
    assert (first["id"], first["job_id"], first["progress"]["step"], first["fault"]) == (busy, id, 3, None)
    assert (second["id"], second["job_id"], second["progress"], second["fault"]) == (broken, None, None, "the disk is full")
    assert first["free_memory"] == 5 * 10**9
    assert client.get(f"/v1/jobs/{id}").json()["worker"] == ABOUT


def test_the_queue(client: httpx.Client, database: Database) -> None:
    nothing = {"queued": 0, "running": 0, "paused": 0, "unfinished": 0, "oldest_seconds": None, "workers": 0, "idle_workers": 0}
    assert client.get("/v1/queue").json() == nothing
    busy = add(database)
    for fault in (None, None, "the disk is full"):
        add(database, fault=fault)
    made = [new_job(client, seed=seed).json()["id"] for seed in range(4)]
    client.post(f"/v1/jobs/{made[-1]}/pause")
    with database.write() as session:
        jobs.claim(session, holder=busy, now=datetime.now(UTC), lease=timedelta(hours=1))
    shown = client.get("/v1/queue").json()
    assert 0 < shown.pop("oldest_seconds") < 600
    assert shown == {"queued": 2, "running": 1, "paused": 1, "unfinished": 3, "workers": 4, "idle_workers": 2}


def test_a_worker_that_was_killed_is_forgotten(database: Database) -> None:
    id = add(database, silent=3601)
    add(database)
    with database.read() as session:
        assert session.get(Worker, id) is None
