"""Which processes send spans, where to, and what they never send."""

import socket
import time
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from service.tracing import links, sending
from tests.support.collector import Collector, collecting
from tests.support.logs import logged


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


def send(monkeypatch: pytest.MonkeyPatch, **variables: str) -> bool:
    """Makes a span in a process with these variables. Returns whether the process has a provider of spans."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # The provider of a process can be set once.
    with patch("opentelemetry.trace.set_tracer_provider") as provided, sending.sent("nern-api"):
        if not provided.called:
            return False
        provider: TracerProvider = provided.call_args.args[0]
        with provider.get_tracer("test").start_as_current_span(
            "GET", attributes={"url.query": "token=hunter2", "url.path": "/"}
        ):
            pass
    return True


def test_spans_are_sent_before_the_process_ends(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    assert send(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    [span] = collector.spans
    assert (span.name, span.service) == ("GET", "nern-api")


def test_the_environment_names_the_service(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    send(monkeypatch, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces", OTEL_SERVICE_NAME="ours")
    assert [span.service for span in collector.spans] == ["ours"]


def test_queries_are_not_sent(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    send(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert collector.spans[0].attributes == {"url.query": "REDACTED", "url.path": "/"}


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_nothing_is_sent_unless_the_environment_says_so(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    with logged() as lines:
        assert not send(monkeypatch, **{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **variables})
    assert ("OTEL_EXPORTER_OTLP_PROTOCOL is grpc" in lines.text) == ("OTEL_EXPORTER_OTLP_PROTOCOL" in variables)
    assert collector.spans == []


def test_without_the_extra_the_log_tells_what_to_install(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    with logged() as lines, patch.dict("sys.modules", {"opentelemetry.sdk.trace": None}):
        assert not send(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert "install nern[otel]" in lines.text


def test_a_collector_that_does_not_answer_holds_no_process_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes connections, and is silent. The exporter by itself would wait for ten seconds."""
    monkeypatch.setattr(sending, "END_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        assert send(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 8


def test_a_span_is_named_by_a_header_and_found_again() -> None:
    assert links.traceparent() is None
    with TracerProvider().get_tracer("test").start_as_current_span("POST") as span:
        header = links.traceparent()
    assert header is not None
    assert header.startswith("00-")
    [link] = links.links_to(header)
    assert (link.context.trace_id, link.context.span_id) == (span.get_span_context().trace_id, span.get_span_context().span_id)
    assert links.links_to(None) == links.links_to("nonsense") == []
    assert not trace.get_current_span().get_span_context().is_valid
