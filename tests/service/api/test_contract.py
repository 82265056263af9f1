"""The HTTP contract: what is the same for all routes."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from typing import Any
from unittest.mock import MagicMock, patch

import httpx
import pytest
from fastapi import FastAPI
from obstore.exceptions import GenericError
from sqlalchemy import text, update

from service import problems
from service.jobs.wakeups import CeleryWaker
from service.readiness import Readiness
from service.settings import Settings
from service.store.blobs import MARK
from service.store.database import Database
from service.store.tables import Installation
from tests.support import rows
from tests.support.calls import files, is_problem, new_job, upload
from tests.support.networks import resnet8
from tests.support.servers import free_port
from tests.support.stored import store_predictor
from tests.support.waiting import DEADLINE_SECONDS, until


def test_lists_are_newest_first_in_pages(client: httpx.Client) -> None:
    made = [new_job(client, seed=seed).json()["id"] for seed in range(3)]
    first = client.get("/v1/jobs", params={"limit": 2}).json()
    second = client.get("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [job["id"] for job in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None
    client.post(f"/v1/jobs/{made[0]}/cancel")
    assert [job["id"] for job in client.get("/v1/jobs", params={"state": "cancelled"}).json()["items"]] == [made[0]]
    assert client.get("/v1/jobs", params={"limit": 1000}).status_code == 200
    assert is_problem(client.get("/v1/jobs", params={"limit": 0}), 422, "invalid")
    assert is_problem(client.get("/v1/jobs", params={"cursor": "%%%"}), 422, "invalid", "cursor")
    assert is_problem(client.get("/v1/jobs", params={"cursor": "YWJj"}), 422, "invalid", "cursor")
    assert is_problem(client.get("/v1/jobs", params={"state": "asleep"}), 422, "invalid")


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "slug"),
    [
        ("GET", "/nowhere", {}, 404, "not-found"),
        ("GET", "/v1/checkpoints/nope", {}, 404, "not-found"),
        ("GET", "/v1/checkpoints/nope/file", {}, 404, "not-found"),
        ("GET", "/v1/datasets/nope", {}, 404, "not-found"),
        ("GET", "/v1/jobs/nope", {}, 404, "not-found"),
        ("GET", "/v1/jobs/nope/events", {}, 404, "not-found"),
        ("GET", "/problems/nope", {}, 404, "not-found"),
        ("PUT", "/v1/jobs", {}, 405, "method-not-allowed"),
        ("POST", "/v1/jobs", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "bad-request"),
        ("POST", "/v1/jobs", {"content": b"a=1"}, 415, "unsupported-media-type"),
        ("POST", "/v1/jobs", {"json": [1]}, 422, "invalid"),
        ("POST", "/v1/jobs", {"json": {}}, 422, "invalid"),
        ("POST", "/v1/jobs", {"json": {"x": "y" * 30_000}}, 413, "too-large"),
        ("POST", "/v1/checkpoints", {"files": {"other": b"x"}}, 400, "bad-request"),
        ("GET", "/v1/jobs/nope/events", {"headers": {"last-event-id": "x"}}, 422, "invalid"),
        ("GET", "/v1/jobs/nope/events", {"headers": {"last-event-id": "9" * 30}}, 422, "invalid"),
        ("GET", "/v1/predictors/nope", {}, 404, "not-found"),
    ],
)
def test_every_error_has_the_same_shape(
    client: httpx.Client, method: str, path: str, options: dict[str, Any], status: int, slug: str
) -> None:
    assert is_problem(client.request(method, path, **options), status, slug)


ALLOWED = {
    "/v1/uploads": "OPTIONS, POST",
    "/v1/uploads/x": "DELETE, GET, HEAD, OPTIONS, PATCH",
    "/v1/predictors/x": "DELETE, GET, HEAD, OPTIONS",
    "/v1/jobs/x/cancel": "OPTIONS, POST",
    "/openapi.json": "GET, HEAD, OPTIONS",
}


def test_a_wrong_method_is_told_all_methods_of_the_path(client: httpx.Client) -> None:
    for path, allowed in ALLOWED.items():
        for method in ("TRACE", "BREW"):
            answer = client.request(method, path)
            assert is_problem(answer, 405, "method-not-allowed", method)
            assert answer.headers["allow"] == allowed
        options = client.options(path)
        assert (options.status_code, options.content) == (204, b"")
        assert path == "/v1/uploads" or options.headers["allow"] == allowed


def test_head_is_get_without_the_body(client: httpx.Client, database: Database) -> None:
    predictor = f"/v1/predictors/{store_predictor(database, resnet8())}"
    events = f"/v1/jobs/{new_job(client).json()['id']}/events"
    for path in (
        "/livez",
        "/problems/invalid",
        "/v1/jobs?limit=1",
        "/v1/jobs/nope",
        events,
        f"{predictor}/file",
        f"{predictor}/weights",
        f"{predictor}/kernels?format=raw",
        f"{predictor}/kernels?layer=x",
    ):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        for name in ("content-type", "content-length", "etag"):
            assert head.headers.get(name) == get.headers.get(name), (path, name)
    # A stream that would go on for ever.
    stream = client.head(events, headers={"accept": "text/event-stream"})
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert client.get("/livez").status_code == 200


def test_no_answer_follows_the_host_that_a_request_names(client: httpx.Client) -> None:
    for path in ("/v1/jobs/", "/livez/", "//v1/jobs", "/docs/"):
        answer = client.get(path, headers={"host": "evil.example"})
        assert is_problem(answer, 404, "not-found")
        assert "location" not in answer.headers
    answer = client.get("/nowhere", headers={"host": "evil.example/x?"})
    assert answer.json()["instance"] == "/nowhere"
    assert "evil" not in answer.text


LONG = "é" * 3000


REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", f"/{LONG}", {}),
    ("GET", f"/v1/jobs/{LONG}", {}),
    ("PUT", f"/v1/jobs/{LONG}", {}),
    ("GET", f"/problems/{LONG}", {}),
    ("GET", "/v1/jobs", {"params": {LONG: "1"}}),
    ("GET", "/v1/jobs", {"params": {"state": LONG}}),
    ("GET", "/v1/jobs", {"params": [(f"{number}", "1") for number in range(1000)]}),
    ("GET", "/v1/jobs/x/events", {"headers": {"accept": "a" * 10_000}}),
    ("GET", "/v1/jobs/x/events", {"headers": {"last-event-id": "a" * 10_000}}),
    ("POST", "/v1/jobs", {"json": {LONG: 1}}),
    ("POST", "/v1/jobs", {"json": {"checkpoint_id": LONG}}),
    ("POST", "/v1/jobs", {"json": {"checkpoint_id": "x", "recipe": LONG}}),
    ("POST", "/v1/jobs", {"json": {f"field {number}": 1 for number in range(900)}}),
    ("POST", "/v1/jobs", {"content": b"{}", "headers": {"content-type": "a" * 10_000}}),
    ("POST", "/v1/jobs", {"json": {"checkpoint_id": "x"}, "headers": {"idempotency-key": "a" * 10_000}}),
    ("POST", "/v1/keys", {"json": {"scope": "read", "owner": LONG}}),
    ("POST", "/v1/checkpoints", {"content": b"a", "headers": {"content-type": "a" * 10_000}}),
    ("POST", "/v1/checkpoints", {"files": {LONG: b"a"}}),
    ("POST", "/v1/checkpoints", {"files": [("file", (LONG[:1000], b"")), ("file", ("b", b""))]}),
    ("POST", "/v1/datasets", {"content": b"a", "params": {"mean": "1," * 3000}}),
    ("POST", "/v1/uploads", {"headers": {"tus-resumable": "a" * 10_000}}),
    ("POST", "/v1/uploads", {"headers": {"tus-resumable": "1.0.0", "upload-length": "1" * 10_000}}),
    (
        "POST",
        "/v1/uploads",
        {"headers": {"tus-resumable": "1.0.0", "upload-length": "1", "upload-metadata": f"{'a' * 10_000} %"}},
    ),
]


def test_a_problem_is_short_however_long_the_request_is(client: httpx.Client) -> None:
    for method, path, options in REQUESTS:
        answer = client.request(method, path, **options)
        case = f"{method} {path[:20]} {str(options)[:40]}: {answer.status_code}"
        assert 400 <= answer.status_code < 500, case
        assert {"type", "detail"} <= answer.json().keys(), case
        # In the worst case, a character takes six bytes.
        assert len(answer.content) < 20_000, case
        assert all(len(text) < 1100 for text in strings(answer.json())), case


def strings(value: Any) -> Iterator[str]:
    """All strings in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def test_a_chunked_body_over_the_limit(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", content=iter([b"{" + b" " * 15_000] * 3), headers={"content-type": "application/json"})
    assert is_problem(answer, 413, "too-large")


def test_faults_say_nothing_about_the_inside(app: FastAPI, client: httpx.Client) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("SELECT secret FROM /etc/passwd")

    answer = client.get("/broken")
    assert is_problem(answer, 500, "internal")
    assert "secret" not in answer.text


def test_problems_are_documented_where_their_type_points(client: httpx.Client) -> None:
    kinds = client.get("/problems").json()
    assert {kind["type"] for kind in kinds} == {f"/problems/{slug}" for slug in problems.KINDS}
    for kind in kinds:
        assert client.get(kind["type"]).json() == kind
        assert kind["description"]


def test_a_page_has_50_items_unless_asked_and_at_most_200(client: httpx.Client, database: Database) -> None:
    with database.write() as session:
        session.add_all(rows.checkpoint() for _ in range(201))
    for query, items in [("", 50), ("?limit=200", 200), ("?limit=201", 200), ("?limit=100000", 200)]:
        page = client.get(f"/v1/checkpoints{query}").json()
        assert len(page["items"]) == items, query
        assert page["next_cursor"], query


def test_health(client: httpx.Client, database: Database) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    names = ("database", "schema", "blobs", "storage", "broker", "inspection")
    assert client.get("/readyz").json() == dict.fromkeys(names, "ok")
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 200


@pytest.mark.parametrize(
    ("migration", "oldest", "state"),
    [("0001", None, "SchemaOutdated"), ("9999", None, "ok"), ("9999", "0013", "ok"), ("9999", "9998", "ReleaseOutdated")],
)
def test_a_replica_is_ready_on_a_later_schema_that_takes_nothing_away(
    client: httpx.Client, database: Database, migration: str, oldest: str | None, state: str
) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :migration"), {"migration": migration})
        session.execute(update(Installation).values(oldest=oldest))
    answer = client.get("/readyz")
    if state == "ok":
        assert (answer.status_code, answer.json()["schema"]) == (200, "ok")
    else:
        assert is_problem(answer, 503, "unavailable", "these probes fail: schema")
        assert answer.json()["checks"]["schema"] == state


def test_a_broker_that_is_away_does_not_take_the_service_down(client: httpx.Client, app: FastAPI) -> None:
    waker = CeleryWaker(f"redis://127.0.0.1:{free_port()}/0")
    app.state.context = replace(app.state.context, waker=waker, readiness=Readiness({"database": str, "broker": waker.probe}))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"database": "ok", "broker": "degraded"})
    job = new_job(client)
    assert job.status_code == 202
    assert client.get(f"/v1/jobs/{job.json()['id']}").json()["state"] == "queued"


def test_a_blob_store_that_is_away_does_not_take_the_service_down(client: httpx.Client) -> None:
    with patch("obstore.get", side_effect=GenericError("no route to host")):
        answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["blobs"]) == (200, "degraded")
    assert client.get("/readyz").json()["blobs"] == "ok"


def test_a_full_disk_is_named(client: httpx.Client) -> None:
    with patch("service.uploads.staging.shutil.disk_usage", return_value=MagicMock(free=2**20)):
        answer = client.get("/readyz")
    assert is_problem(answer, 503, "unavailable", "storage")
    assert answer.json()["checks"]["storage"] == "StorageFull"


FULL = "Generic LocalFileSystem error: Unable to copy data: No space left on device (os error 28)"


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("service.uploads.staging._File.flush", OSError(28, "No space left on device")),
        ("service.uploads.staging._File.flush", OSError(122, "Disk quota exceeded")),
        ("obstore.put_async", GenericError(FULL)),
    ],
)
def test_an_upload_that_finds_the_disk_full_leaves_nothing(
    client: httpx.Client, settings: Settings, where: str, error: Exception
) -> None:
    with patch(where, side_effect=error):
        answer = upload(client)
    assert is_problem(answer, 507, "storage-full", "no room")
    assert answer.headers["retry-after"] == "60"
    assert not files(settings.staging)
    assert not files(settings.data_dir / "blobs")
    assert upload(client).status_code == 201


@pytest.mark.parametrize("hangs", ["obstore.get", "service.store.database.Database.read"])
def test_a_dependency_that_hangs_does_not_hold_the_readiness_probe(client: httpx.Client, hangs: str) -> None:
    over = Event()
    with patch(hangs, lambda *_, **__: over.wait(DEADLINE_SECONDS)), patch("service.readiness.PROBE_SECONDS", 0.1):
        client.get("/readyz")
        threads = threading.active_count()
        answers = [client.get("/readyz") for _ in range(50)]
        # On a slow machine, other probes may need the time too. Each has one thread at most.
        assert threading.active_count() < threads + 10
    over.set()
    for answer in answers:
        if hangs == "obstore.get":
            assert answer.json()["blobs"] == "degraded"
        else:
            assert is_problem(answer, 503, "unavailable", "database")
            assert answer.json()["checks"]["database"] == "TimeoutError"
    until(lambda: set(client.get("/readyz").json().values()) == {"ok"}, what="readiness")


def test_a_blob_store_without_the_blobs_of_the_database_is_named(client: httpx.Client, settings: Settings) -> None:
    """As where nothing is mounted. A new one, and one of an earlier release, is marked."""
    mark = settings.data_dir / "blobs" / MARK
    mark.unlink()
    assert client.get("/readyz").status_code == 200
    assert mark.exists()
    upload(client)
    mark.unlink()
    assert client.get("/readyz").status_code == 200
    mark.unlink()
    (settings.data_dir / "blobs" / "checkpoints").rename(settings.data_dir / "elsewhere")
    answer = client.get("/readyz")
    assert answer.json()["checks"]["blobs"] == "WrongBlobStore"
    assert is_problem(upload(client), 503, "unavailable", "the blob store is not that of the service")
    assert not files(settings.data_dir / "blobs")


def test_a_database_without_the_tables_of_this_release_is_unavailable(client: httpx.Client, database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE job RENAME TO work")
    answer = client.get("/v1/jobs")
    assert is_problem(answer, 503, "unavailable", "run `nern migrate`")
    assert answer.headers["retry-after"] == "5"
