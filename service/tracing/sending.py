"""Sends the spans of a process to a collector, if the environment names one.

The variables are those of OpenTelemetry (OTEL_*). Without OTEL_EXPORTER_OTLP_ENDPOINT, or without the extra `otel`, all spans
are the empty ones of opentelemetry-api: nothing is recorded, and nothing is sent.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING

from opentelemetry import trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger(__name__)

# How long a process that ends waits for a collector that does not answer. A worker has ten seconds to end.
END_SECONDS = 2.0

PROTOCOL = "http/protobuf"


@contextmanager
def sent(service: str) -> Iterator[None]:
    """A block whose spans are sent. A process enters one such block.

    service: the attribute `service.name` of the spans, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES has another one.
    """
    if not _is_wanted() or (provider := _make_provider(service)) is None:
        yield
        return
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        end(provider)


def end(provider: "TracerProvider") -> None:
    """Sends what has not been sent yet, but waits at most END_SECONDS."""
    ending = Thread(target=provider.shutdown, name="last spans", daemon=True)
    ending.start()
    ending.join(END_SECONDS)


def _is_wanted() -> bool:
    given = os.environ
    endpoint = given.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or given.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint or given.get("OTEL_SDK_DISABLED", "").lower() == "true" or given.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    protocol = given.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or given.get("OTEL_EXPORTER_OTLP_PROTOCOL") or PROTOCOL
    if protocol != PROTOCOL:
        log.warning(
            "no spans are sent: OTEL_EXPORTER_OTLP_PROTOCOL is %s, and this service speaks %s alone", protocol, PROTOCOL
        )
    return protocol == PROTOCOL


def _make_provider(service: str) -> "TracerProvider | None":
    """What records spans, and sends them in a thread. None without the extra."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from service.tracing.queries import WithoutQueries
    except ImportError:
        log.warning("no spans are sent, although OTEL_EXPORTER_OTLP_ENDPOINT is set: install nern[otel]")
        return None
    own = Resource.create({"service.name": service, "service.version": version("nern")})
    provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(WithoutQueries())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
