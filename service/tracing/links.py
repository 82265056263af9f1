"""The way of a trace from a request to the attempts at its job: through a column of the job's row."""

from opentelemetry import trace
from opentelemetry.trace import Link
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


def traceparent() -> str | None:
    """The current span as the header `traceparent` names it (W3C Trace Context). None if spans are not recorded."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


def links_to(traceparent: str | None) -> list[Link]:
    """A link to the span that a header `traceparent` names; nothing for None."""
    if traceparent is None:
        return []
    span = trace.get_current_span(_PROPAGATOR.extract({"traceparent": traceparent})).get_span_context()
    return [Link(span)] if span.is_valid else []
