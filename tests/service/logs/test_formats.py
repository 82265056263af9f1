"""A line of the log: its fields, its bounds, and what never gets into it."""

import json
import logging
import os
import re
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from service.access import tokens
from service.logs import context
from service.logs.formats import OF_REQUESTS, JsonFormatter, TextFormatter
from service.store import jobs
from service.store.database import Database
from tests.support import rows
from tests.support.logs import logged

log = logging.getLogger("service.test")

DOCUMENT = Path(__file__).parents[3] / "docs/logs.md"

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105

FORMATS: list[type[logging.Formatter]] = [TextFormatter, JsonFormatter]


def formatted(formatter: type[logging.Formatter], message: str, *arguments: object, **values: Any) -> str:
    """A line about a message, with the ids of the work at hand."""
    record = logging.LogRecord("service.test", logging.INFO, __file__, 1, message, arguments, None)
    for name, value in values.items():
        setattr(record, name, value)
    return formatter().format(record)


def raised(error: Exception) -> Any:
    try:
        raise error
    except Exception as raised:
        return (type(raised), raised, raised.__traceback__)


def everything() -> dict[str, Any]:
    """A line with every field that a line can have."""
    ids: Any = {name: name for name in context.About.__annotations__}
    span = NonRecordingSpan(SpanContext(0xA, 0xB, is_remote=False, trace_flags=TraceFlags(1)))
    with context.within(**ids), trace.use_span(span):
        values = {name: name for name in OF_REQUESTS}
        line = formatted(JsonFormatter, "hello", omitted=4, exc_info=raised(ValueError("no")), **values)
    return dict(json.loads(line))


def test_every_field_is_documented() -> None:
    section = DOCUMENT.read_text().split("\n## Lines\n")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == sorted(everything())


def test_a_line_is_one_object_with_the_ids_of_the_work() -> None:
    line = everything()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    expected = {"level": "info", "logger": "service.test", "message": "hello", "process": os.getpid(), "omitted": 4}
    expected |= {"trace_id": f"{10:032x}", "span_id": f"{11:016x}"}
    assert expected.items() <= line.items()
    assert {"request_id", "job_id", "owner", "attempt", "fence"} <= line.keys()
    assert line["stack"].startswith("Traceback (most recent call last):")
    assert line["stack"].endswith("ValueError: no")


def test_an_exception_is_on_the_same_line() -> None:
    line = formatted(JsonFormatter, "a\nb\r\u2028\x1b[31m", exc_info=raised(ValueError("c\nd")))
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == "a\nb\r\u2028\x1b[31m"


def test_text_of_clients_makes_no_line_of_its_own_and_no_colours() -> None:
    line = formatted(TextFormatter, "%s is unknown", "a\n2026-01-01 INFO forged\x1b[31m")
    assert line.endswith(r"INFO service.test: a\n2026-01-01 INFO forged\x1b[31m is unknown")


def test_text_of_clients_in_an_exception_makes_no_line_either() -> None:
    first, *others = formatted(
        TextFormatter, "hello", exc_info=raised(ValueError("a\n2026-01-01 INFO forged\x1b"))
    ).splitlines()
    assert first.endswith("hello")
    assert others[-1] == r"    2026-01-01 INFO forged\x1b"
    assert all(line.startswith("    ") for line in others)


def test_text_tells_the_ids_too() -> None:
    with context.within(request_id="r", attempt=1):
        assert formatted(TextFormatter, "hello").endswith("INFO service.test: hello [request_id=r attempt=1]")


@pytest.mark.parametrize("formatter", FORMATS)
def test_a_line_is_bounded_whatever_a_client_sends(formatter: type[logging.Formatter]) -> None:
    long = "x" * 1_000_000
    line = formatted(formatter, "%s", long, exc_info=raised(ValueError(long)), path=long)
    assert len(line) < 25_000
    assert "ValueError" in line
    assert "characters …" in line or "characters \\u2026" in line


@pytest.mark.parametrize("formatter", FORMATS)
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"the key {tokens.make()} is unknown", r"nern_\w"),
        (f"{{'secret': '{SECRET}'}}", SECRET),
        ("Authorization: Bearer abcdefghijklmnop", "abcdefghijklmnop"),
        ("no answer from postgresql://nern:hunter2@db:5432/nern", "hunter2"),
        ("GET https://example.org/hook?token=hunter2&a=b failed", "hunter2"),
    ],
    ids=["API key", "secret of a webhook", "bearer token", "password", "query"],
)
def test_secrets_are_taken_out(formatter: type[logging.Formatter], text: str, secret: str) -> None:
    line = formatted(formatter, "%s", text, exc_info=raised(ValueError(text)))
    assert "REDACTED" in line
    assert not re.search(secret, line)


def test_an_error_of_the_database_tells_no_parameters(database: Database) -> None:
    checkpoint = rows.checkpoint()
    # A secret that has not the form of one, so that only the database can keep it to itself.
    job = rows.job(checkpoint.id, webhook={"url": "https://example.org", "secret": "hunter2"}, idempotency_key="hunter2")
    job.checkpoint_id = "not there"
    with logged() as lines:
        try:
            with database.write() as session:
                jobs.add(session, job)
        except Exception:
            log.exception("the job could not be stored")
    assert "INSERT INTO job" in lines.text
    assert "hunter2" not in lines.text


def in_thread(function: Callable[[], None]) -> None:
    thread = Thread(target=function)
    thread.start()
    thread.join()


def test_a_thread_takes_the_ids_over_if_it_is_told_to() -> None:
    seen: list[context.About] = []
    with context.within(job_id="j"):
        in_thread(lambda: seen.append(context.about()))
        carried = copy_context()
        in_thread(lambda: carried.run(lambda: seen.append(context.about())))
    assert seen == [{}, {"job_id": "j"}]
    assert context.about() == {}
