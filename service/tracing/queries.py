"""Takes the query out of the spans of requests, because clients put secrets there. Imports the extra `otel`."""

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor

QUERY = "url.query"


class WithoutQueries(SpanProcessor):
    """Overwrites the query when a span starts. (An attribute can't be removed.)"""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if span.attributes and QUERY in span.attributes:
            span.set_attribute(QUERY, "REDACTED")
