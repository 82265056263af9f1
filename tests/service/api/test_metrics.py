"""What the API counts of its requests, and what follows from them, as Prometheus reads it."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest.mock import Mock, patch

import httpx
import pytest
import sqlalchemy.exc
from fastapi import FastAPI
from obstore.exceptions import GenericError
from pydantic import SecretStr
from sqlalchemy import text, update

from service.api.app import create_app
from service.inspection.process import Inspector
from service.jobs.sweep import sweep
from service.metrics.requests import METHODS
from service.readiness import Readiness
from service.settings import Settings
from service.store import jobs
from service.store.database import Away, Database
from service.store.tables import Job
from tests.support import rows
from tests.support.calls import NETWORK, new_job, upload
from tests.support.metrics import Scrape, scraping
from tests.support.networks import resnet8
from tests.support.stored import store_predictor
from tests.support.tus import RESUMABLE, create
from tests.support.waiting import until

LATENCY = "nern_http_request_duration_seconds"
COUNT = f"{LATENCY}_count"


@pytest.fixture
def scrape(settings: Settings) -> Iterator[Callable[[], Scrape]]:
    with scraping(settings) as scrape:
        yield scrape


def test_a_request_counts_for_its_route(client: httpx.Client, scrape: Callable[[], Scrape]) -> None:
    before = scrape()
    uploaded = upload(client)
    for id in ("nope", uploaded.json()["id"]):
        client.get(f"/v1/checkpoints/{id}")
    answer = client.get(f"/v1/checkpoints/{uploaded.json()['id']}/file")
    after = scrape()
    one = {"method": "GET", "route": "/v1/checkpoints/{id}"}
    assert after.grown(before, COUNT, **one, status="2xx") == 1
    assert after.grown(before, COUNT, **one, status="4xx") == 1
    assert after.grown(before, f"{LATENCY}_bucket", **one, status="2xx", le="+Inf") == 1
    file = {"method": "GET", "route": "/v1/checkpoints/{id}/file"}
    assert after.grown(before, "nern_http_response_bytes_total", **file) == len(answer.content) == len(NETWORK)
    posted = {"method": "POST", "route": "/v1/checkpoints"}
    sent = int(uploaded.request.headers["content-length"])
    assert sent > len(NETWORK)
    until(lambda: scrape().grown(before, "nern_http_request_bytes_total", **posted) == sent, what="the end of the request")
    assert after.grown(before, "nern_inspection_seconds_count", kind="checkpoint", outcome="accepted") == 1


def test_paths_and_methods_of_clients_make_no_series(client: httpx.Client, scrape: Callable[[], Scrape]) -> None:
    for method in [*METHODS, "ANY"]:
        client.request(method, "/any")
    client.get("/v1/jobs/any")
    before = scrape()
    for number in range(1000):
        path = f"/path-{number}" if number % 3 else f"/v1/jobs/id-{number}?parameter-{number}=1"
        client.request(f"METHOD{number}" if number % 2 else "GET", path)
    after = scrape()
    assert after.series.keys() == before.series.keys()
    counted = sum(after.series[series] - before.series[series] for series in after.series if series[0] == COUNT)
    assert counted == 1000
    assert after.grown(before, COUNT, method="other", route="unmatched", status="4xx") > 400
    assert after.grown(before, COUNT, method="GET", route="/v1/jobs/{id}", status="4xx") > 100


def test_the_port_of_the_api_does_not_show_metrics(client: httpx.Client, scrape: Callable[[], Scrape]) -> None:
    assert "nern_http_requests_in_progress" in scrape().families
    assert client.get("/metrics").status_code == 404


def test_requests_that_are_refused_early_count_for_their_route(
    settings: Settings, database: Database, scrape: Callable[[], Scrape]
) -> None:
    app = create_app(settings.model_copy(update={"api_keys": SecretStr("read:0123456789abcdef")}))

    async def ask(path: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            return (await client.get(path)).status_code

    before = scrape()
    assert asyncio.run(ask("/v1/jobs")) == asyncio.run(ask("/metrics")) == 401
    after = scrape()
    assert after.grown(before, COUNT, method="GET", route="/v1/jobs", status="4xx") == 1
    assert after.grown(before, COUNT, method="GET", route="unmatched", status="4xx") == 1


def test_an_unforeseen_error_counts_as_one(client: httpx.Client, scrape: Callable[[], Scrape]) -> None:
    before = scrape()
    with patch.object(jobs, "queue", side_effect=RuntimeError("a fault")):
        assert client.get("/v1/queue").status_code == 500
    after = scrape()
    assert after.grown(before, COUNT, method="GET", route="/v1/queue", status="5xx") == 1
    until(lambda: scrape().value("nern_http_requests_in_progress") == 0, what="the end of the request")


def test_the_method_that_is_carried_out_counts(client: httpx.Client, scrape: Callable[[], Scrape]) -> None:
    made = create(client, 10)
    before = scrape()
    client.post(made.headers["location"], headers={**RESUMABLE, "X-HTTP-Method-Override": "DELETE"})
    after = scrape()
    assert after.grown(before, COUNT, method="DELETE", route="/v1/uploads/{id}", status="2xx") == 1


def test_a_stream_counts_when_it_begins(client: httpx.Client, scrape: Callable[[], Scrape]) -> None:
    job = new_job(client).json()["id"]
    until(lambda: scrape().value("nern_http_requests_in_progress") == 0, what="the end of the request")
    before = scrape()
    events = {"method": "GET", "route": "/v1/jobs/{id}/events"}
    with client.stream("GET", f"/v1/jobs/{job}/events", headers={"accept": "text/event-stream"}) as stream:
        lines = stream.iter_lines()  # without its iterator, the client would end the stream
        assert next(lines)
        during = scrape()
        assert during.grown(before, COUNT, **events, status="2xx") == 1
        assert during.grown(before, "nern_http_response_bytes_total", **events) > 0
        assert during.value("nern_http_requests_in_progress") == 1
    until(lambda: scrape().value("nern_http_requests_in_progress") == 0, what="the end of the stream")


def test_what_is_rendered_counts_once(client: httpx.Client, database: Database, scrape: Callable[[], Scrape]) -> None:
    network = resnet8()
    id = store_predictor(database, network)
    before = scrape()
    for _ in range(2):
        assert client.get(f"/v1/predictors/{id}/kernels?layer=1&filter=3&channel=9").status_code == 200
    after = scrape()
    layer = network["layer1.0.conv1.weight"]
    assert after.grown(before, "nern_render_bytes_total") == layer.nbytes  # a layer of one block
    assert after.grown(before, "nern_render_seconds_count") == 1
    assert after.grown(before, "nern_render_seconds_sum") > 0
    for cache in ("predictors", "blocks"):
        for result in ("miss", "hit"):
            assert after.grown(before, "nern_cache_requests_total", cache=cache, result=result) == 1, (cache, result)


def test_refused_files_count(client: httpx.Client, scrape: Callable[[], Scrape]) -> None:
    before = scrape()
    assert upload(client, b"no network").status_code == 422
    after = scrape()
    assert after.grown(before, "nern_inspection_seconds_count", kind="checkpoint", outcome="refused") == 1
    with patch.object(Inspector, "start", side_effect=OSError("no memory")):
        assert upload(client, b"no network").status_code == 503
    assert scrape().grown(after, "nern_inspection_seconds_count", kind="checkpoint", outcome="failed") == 1


def test_errors_of_the_stores_count(client: httpx.Client, database: Database, scrape: Callable[[], Scrape]) -> None:
    before = scrape()
    with patch("obstore.put_async", side_effect=GenericError("no route to host")):
        assert upload(client).status_code == 503
    with patch("obstore.put_async", side_effect=GenericError("No space left on device (os error 28)")):
        assert upload(client).status_code == 507
    with database.write() as session:
        session.execute(text("ALTER TABLE checkpoint RENAME TO gone"))
    assert client.get("/v1/checkpoints").status_code == 503
    with patch("sqlalchemy.pool.QueuePool._do_get", side_effect=sqlalchemy.exc.TimeoutError):
        assert client.get("/v1/checkpoints").status_code == 503
    after = scrape()
    for error in ("unreachable", "full"):
        assert after.grown(before, "nern_blob_errors_total", error=error) == 1, error
    # The sweeps of the API may have met with the same errors.
    for error in ("schema", "exhausted"):
        assert after.grown(before, "nern_database_errors_total", error=error) >= 1, error


def test_readiness_is_a_metric(client: httpx.Client, app: FastAPI, scrape: Callable[[], Scrape]) -> None:
    database = Mock()
    app.state.context = replace(app.state.context, readiness=Readiness({"database": database, "storage": str}))
    client.get("/readyz")
    assert scrape().value("nern_ready", part="database") == 1
    database.side_effect = Away
    client.get("/readyz")
    read = scrape()
    assert (read.value("nern_ready", part="database"), read.value("nern_ready", part="storage")) == (0, 1)


def test_expired_leases_count(settings: Settings, database: Database, scrape: Callable[[], Scrape]) -> None:
    checkpoint = rows.checkpoint()
    made = [rows.job(checkpoint.id) for _ in range(3)]
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        for job in made:
            jobs.add(session, job)
        for _ in made:
            jobs.claim(session, holder="w", now=datetime.now(UTC) - timedelta(hours=1), lease=timedelta(minutes=1))
        session.execute(update(Job).where(Job.id == made[0].id).values(fruitless=settings.max_attempts))
    before = scrape()
    sweep(database, settings)
    sweep(database, settings)
    after = scrape()
    assert after.grown(before, "nern_lease_expiries_total", state="queued") == 2
    assert after.grown(before, "nern_lease_expiries_total", state="failed") == 1
