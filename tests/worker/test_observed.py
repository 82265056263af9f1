"""What a worker tells of a job while it works on it: lines of the log, and spans."""

from collections.abc import Iterator
from datetime import timedelta
from unittest.mock import patch

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import nern.spans
from nern.errors import TrainingDiverged
from service.logs.context import about as about_the_work
from service.store import jobs, origins
from service.store.blobs import Blobs, Unreachable
from service.store.database import Database
from service.store.tables import Job
from tests.support import rows
from tests.support.logs import logged
from tests.support.networks import resnet8
from tests.support.place import Place
from tests.support.rows import NOW
from tests.support.waiting import DEADLINE_SECONDS
from worker import lease, run, spans


@pytest.fixture
def recorded() -> Iterator[InMemorySpanExporter]:
    """The spans of this process, while a test runs."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with patch.object(spans, "tracer", tracer), patch.object(nern.spans, "tracer", tracer):
        yield exporter


def span(recorded: InMemorySpanExporter, name: str) -> ReadableSpan:
    [found] = [span for span in recorded.get_finished_spans() if span.name == name]
    return found


def test_every_line_about_a_job_has_its_ids_whatever_thread_writes_it(place: Place) -> None:
    """The heartbeat and the snapshots are the work of threads. Here, the first of each fails."""
    settings = place.settings.model_copy(update={"snapshot_seconds": 0.0, "lease_seconds": DEADLINE_SECONDS})
    id = place.add(resnet8(), architecture=None)
    with place.database.write() as session:
        session.get_one(Job, id).request_id = "of-the-client"
    with (
        logged() as lines,
        patch.object(lease, "HEARTBEAT_SECONDS", 0.01),
        patch.object(jobs, "heartbeat", side_effect=[RuntimeError("no heartbeat"), *[None] * 100_000]),
        patch.object(Blobs, "upload", side_effect=[Unreachable("no upload"), *[None] * 1000]),
    ):
        run.Worker(settings, place.stopping).work()
    about = {"request_id": "of-the-client", "job_id": id, "owner": "", "attempt": 1, "fence": 1}
    of_job = [line for line in lines.all() if line["logger"].startswith("worker.")]
    assert {line["logger"] for line in of_job} == {"worker.run", "worker.lease", "worker.snapshots"}
    for line in of_job:
        assert about.items() <= line.items(), line
    assert about_the_work() == {}


def test_a_span_tells_how_an_attempt_has_failed(place: Place, recorded: InMemorySpanExporter) -> None:
    place.add(resnet8(), architecture=None)
    with patch("nern.training.loop.Training.run", side_effect=TrainingDiverged("the loss became nan")):
        place.worker.work()
    attempt = span(recorded, "job attempt")
    assert dict(attempt.attributes or {}) == {"nern.job.outcome": "failed"}
    assert (attempt.status.status_code, attempt.status.description) == (StatusCode.ERROR, "the loss became nan")


def test_a_job_that_is_given_back_has_not_failed(place: Place, recorded: InMemorySpanExporter) -> None:
    place.add(resnet8(), architecture=None, steps=10_000)
    place.stopping.set()
    place.worker.work()
    spans = recorded.get_finished_spans()
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}
    assert dict(span(recorded, "job attempt").attributes or {}) == {"nern.job.outcome": "given_back"}
    assert not [span for span in spans if span.events]


def test_a_job_has_waited_since_it_was_queued_the_last_time(database: Database) -> None:
    checkpoint = rows.checkpoint()
    job = rows.job(checkpoint.id, owner="team-a", request_id="r", traceparent="t")
    lasting = timedelta(seconds=30)
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        jobs.add(session, job)
        first = jobs.claim(session, holder="w", now=NOW + timedelta(seconds=5), lease=lasting)
        assert first is not None
        assert origins.of(session, first) == origins.Origin("team-a", "r", "t", 1, timedelta(seconds=5))
        jobs.give_back(session, first, now=NOW + timedelta(seconds=100), counted=True)
        second = jobs.claim(session, holder="w", now=NOW + timedelta(seconds=107), lease=lasting)
        assert second is not None
        assert origins.of(session, second) == origins.Origin("team-a", "r", "t", 2, timedelta(seconds=7))
