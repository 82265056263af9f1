"""A job as whoever runs the service sees it: the log and the spans of all processes, from the request to the end of the job."""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.e2e.flow import ok
from tests.support import migrated
from tests.support.collector import Collected, Collector, collecting
from tests.support.networks import dataset_file, resnet8, saved
from tests.support.processes import celery_worker, serving
from tests.support.servers import free_port
from tests.support.waiting import DEADLINE_SECONDS, until

Line = dict[str, Any]

KEY = "0123456789abcdef"
TOKEN = "hunter2-in-a-query"  # noqa: S105
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
REQUEST = "request-of-the-client"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

PHASES = ["phase reconstruction", "phase distillation"]


@dataclass(frozen=True)
class Observed:
    """What was seen of one job. `api` and `worker` are what the processes wrote to their standard output and error."""

    job_id: str
    api: str
    worker: str
    collector: Collector

    @property
    def lines(self) -> list[Line]:
        return [json.loads(line) for line in (self.api + self.worker).splitlines()]

    def span(self, name: str) -> Collected:
        [span] = self.collector.named(name)
        return span


@pytest.fixture(scope="module")
def observed(postgres_server: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """As deployed, with a log of JSON and a collector: a job that succeeds, and a request that is refused."""
    folder = tmp_path_factory.mktemp("observed")
    database = migrated.postgresql(postgres_server, f"observed_{uuid4().hex}")
    with collecting() as collector:
        settings = {
            **collector.settings,
            "NERN_DATABASE_URL": database.libpq_url or "",
            "NERN_BROKER_URL": redis_url,
            "NERN_API_KEYS": f"write@team-a:{KEY}",
            "NERN_WEBHOOK_NETWORKS": "127.0.0.0/8",
            "NERN_LOG_FORMAT": "json",
            "NERN_INSPECTORS": "0",
        }
        with (
            serving(folder, settings) as (url, _),
            httpx.Client(base_url=url, timeout=DEADLINE_SECONDS, headers={"Authorization": f"Bearer {KEY}"}) as client,
            celery_worker(folder, settings),
        ):
            job_id = run_job(client)
            assert client.get(f"/v1/jobs/{uuid4()}", params={"token": TOKEN}).status_code == 422
        database.close()
        yield Observed(job_id, (folder / "serve.log").read_text(), (folder / "celery.log").read_text(), collector)


def run_job(client: httpx.Client) -> str:
    """A job with images to distil from. Its webhook is told in vain. Returns its id."""
    checkpoint = ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}))
    dataset = ok(client.post("/v1/datasets", files={"file": dataset_file(40)}))
    webhook = {"url": f"http://127.0.0.1:{free_port()}/?token={TOKEN}", "secret": SECRET}
    body = {"checkpoint_id": checkpoint["id"], "data": {"dataset_id": dataset["id"]}, "webhook": webhook}
    short = {"architecture": "cifar/resnet8", "steps": 40, "reconstruction_steps": 20, "hidden": 8, "image_batch": 4}
    headers = {"X-Request-ID": REQUEST, "traceparent": f"00-{TRACE}-{SPAN}-01"}
    id = str(ok(client.post("/v1/jobs", json={**body, **short}, headers=headers))["id"])
    until(lambda: ok(client.get(f"/v1/jobs/{id}"))["state"] == "succeeded", what="the job")
    until(lambda: ok(client.get(f"/v1/jobs/{id}/deliveries"))[0]["attempts"], what="the webhook")
    return id


def test_whatever_a_process_writes_is_a_line_of_json(observed: Observed) -> None:
    for text in (observed.api, observed.worker):
        assert text.splitlines()
        for line in text.splitlines():
            found = json.loads(line)
            assert {"time", "level", "logger", "message", "process"} <= found.keys()
            assert "stack" not in found, found
    loggers = {line["logger"] for line in observed.lines}
    assert {"uvicorn.error", "celery.apps.worker", "worker", "worker.run", "service.http.access_log"} <= loggers


def test_the_id_of_the_request_goes_through_the_queue_to_the_worker(observed: Observed) -> None:
    seen = {line["logger"]: line for line in observed.lines if line.get("request_id") == REQUEST}
    assert {"service.api.jobs", "service.http.access_log", "worker.celery", "worker.run"} == seen.keys()
    worker = seen["worker.run"]
    assert worker["message"] == "the job has succeeded"
    assert (worker["job_id"], worker["owner"], worker["attempt"], worker["fence"]) == (observed.job_id, "team-a", 1, 1)
    assert seen["service.api.jobs"]["job_id"] == observed.job_id
    access = seen["service.http.access_log"]
    assert (access["owner"], access["route"], access["status"]) == ("team-a", "/v1/jobs", 202)


def test_lines_name_the_span_in_which_they_were_written(observed: Observed) -> None:
    traces = {
        line["logger"]: line["trace_id"] for line in observed.lines if line.get("request_id") == REQUEST and "trace_id" in line
    }
    assert traces["service.http.access_log"] == traces["service.api.jobs"] == TRACE
    assert traces["worker.run"] == observed.span("job").trace_id


def test_no_secret_is_logged_or_sent(observed: Observed) -> None:
    everything = observed.api + observed.worker + repr(observed.collector.spans)
    for secret in (KEY, TOKEN, SECRET):
        assert secret not in everything, secret


def test_a_request_is_a_span_of_the_trace_of_its_client(observed: Observed) -> None:
    span = observed.span("POST /v1/jobs")
    assert (span.service, span.kind, span.trace_id, span.parent_id) == ("nern-api", 2, TRACE, SPAN)
    attributes = {"http.request.method": "POST", "http.route": "/v1/jobs", "http.response.status_code": 202}
    assert attributes.items() <= span.attributes.items()
    assert not span.failed


def test_the_names_of_spans_are_few_and_probes_make_none(observed: Observed) -> None:
    names = {span.name for span in observed.collector.spans}
    assert not [name for name in names if re.search(r"[0-9a-f]{8}-", name)]
    assert "GET /v1/jobs/{id}" in names
    assert not {"GET /livez", "GET /readyz"} & names


def test_an_attempt_is_a_trace_of_its_own_with_a_link_to_the_request(observed: Observed) -> None:
    job, request = observed.span("job"), observed.span("POST /v1/jobs")
    assert (job.service, job.kind, job.parent_id, job.links) == ("nern-worker", 5, "", [(TRACE, request.span_id)])
    assert job.trace_id != TRACE
    expected = {"nern.job.id": observed.job_id, "nern.job.attempt": 1, "nern.job.fence": 1, "nern.owner": "team-a"}
    assert job.attributes == expected | {"nern.request.id": REQUEST}


def test_the_spans_of_a_job_tell_what_its_time_went_to(observed: Observed) -> None:
    job, wait, attempt = observed.span("job"), observed.span("job wait"), observed.span("job attempt")
    assert {wait.parent_id, attempt.parent_id} == {job.span_id}
    assert job.start == wait.start <= wait.end == attempt.start
    assert attempt.attributes == {"nern.job.outcome": "succeeded"}
    parts = [observed.span(name) for name in ("load inputs", "find paths", *PHASES, "store predictor")]
    assert {part.parent_id for part in parts} == {attempt.span_id}
    for before, after in itertools.pairwise(parts):
        assert before.end <= after.start
    evaluations = observed.collector.named("evaluate")
    assert {evaluation.parent_id for evaluation in evaluations} == {part.span_id for part in parts[2:4]}
    assert not any(span.failed for span in [job, wait, attempt, *parts])
