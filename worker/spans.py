"""The spans of a job; docs/logs.md lists them. The spans of its training are made where the work is done, in `nern`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode

from service.store.jobs import Lease
from service.store.origins import Origin
from service.tracing.links import links_to

tracer = trace.get_tracer("nern.worker")


@contextmanager
def of_attempt(lease: Lease, origin: Origin) -> Iterator[None]:
    """A block in which an attempt is made. Its spans are a trace of their own, with a link to the request of the job.

    They are not children of the request's span: that trace is over long before, and collectors that choose traces when they end
    would lose the attempt. A job may also have several attempts.
    """
    began = time.time_ns()
    # By the clock of this machine, as all spans of this process.
    queued = began - int(origin.waited.total_seconds() * 1e9)
    attributes: dict[str, str | int] = {
        "nern.job.id": lease.job_id,
        "nern.job.attempt": origin.attempt,
        "nern.job.fence": lease.fence,
        "nern.owner": origin.owner,
    }
    if origin.request_id:
        attributes["nern.request.id"] = origin.request_id
    with tracer.start_as_current_span(
        "job",
        context=Context(),
        kind=SpanKind.CONSUMER,
        links=links_to(origin.traceparent),
        attributes=attributes,
        start_time=queued,
        record_exception=False,  # it is in the log, without secrets
    ):
        tracer.start_span("job wait", start_time=queued).end(began)
        with tracer.start_as_current_span("job attempt", start_time=began, record_exception=False):
            yield


def end(outcome: str, error: str | None = None) -> None:
    """Writes down how the attempt at hand has ended, and why if it has failed."""
    span = trace.get_current_span()
    span.set_attribute("nern.job.outcome", outcome)
    if error is not None:
        span.set_status(StatusCode.ERROR, error)
