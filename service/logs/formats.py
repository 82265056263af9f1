"""A log record as a line: text for people, or JSON (docs/logs.md lists the fields)."""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace

from service.logs.context import about

# No client can make a line long. The end of a stack tells most, so what is left out is in the middle.
MESSAGE_CHARACTERS = 4_000
STACK_CHARACTERS = 16_000
VALUE_CHARACTERS = 200

# What the line about a request has besides the message; see `service.http.access_log`.
OF_REQUESTS = ("method", "path", "route", "status", "seconds", "size", "client")

REDACTED = "REDACTED"

# API keys, secrets of webhooks, bearer tokens, and the passwords and queries of URLs. No line of ours has them, but the message
# of an exception may.
SECRETS = re.compile(
    r"nern_[0-9A-Za-z]{36}|whsec_[0-9A-Za-z+/=]+|(?<=[Bb]earer )[^\s\"',]+|(?<=://)[^/\s@]*:[^/\s@]+(?=@)"
    r"|(?<=\?)[\w.~%+-]+=[^\s\"'<>]+"
)


class TextFormatter(logging.Formatter):
    """Time, level, logger, message, and the ids in brackets. The stack of an exception follows on lines that are indented."""

    def format(self, record: logging.LogRecord) -> str:
        ids = " ".join(f"{name}={value}" for name, value in {**_ids(), **_omitted(record)}.items())
        moment = self.formatTime(record)
        line = f"{moment} {record.levelname} {record.name}: {_printable(_message(record))}" + (f" [{ids}]" if ids else "")
        return "\n    ".join([line, *map(_printable, _stack(self, record).splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object, without line breaks. The stack of an exception is one field."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            "process": record.process,
            **_ids(),
        }
        for name in OF_REQUESTS:
            if (value := getattr(record, name, None)) is not None:
                fields[name] = shortened(value, VALUE_CHARACTERS) if isinstance(value, str) else value
        if stack := _stack(self, record):
            fields["stack"] = stack
        return json.dumps(fields | _omitted(record))


def shortened(text: str, characters: int) -> str:
    """The text, or its beginning and its end if it has more than so many characters."""
    if len(text) <= characters:
        return text
    half = characters // 2
    return f"{text[:half]}[… {len(text) - 2 * half} characters …]{text[-half:]}"


def _ids() -> dict[str, object]:
    """The ids of the work at hand, and those of its span if there is one."""
    ids: dict[str, object] = {**about()}
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        ids |= {"trace_id": trace.format_trace_id(span.trace_id), "span_id": trace.format_span_id(span.span_id)}
    return ids


def _omitted(record: logging.LogRecord) -> dict[str, int]:
    """How many lines the handler has left out, if it has."""
    omitted: int = getattr(record, "omitted", 0)
    return {"omitted": omitted} if omitted else {}


def _message(record: logging.LogRecord) -> str:
    return shortened(SECRETS.sub(REDACTED, record.getMessage()), MESSAGE_CHARACTERS)


def _stack(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The stack of the exception of a record, or of the record itself, or nothing."""
    parts = []
    if record.exc_info and record.exc_info[0]:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(record.stack_info)
    return shortened(SECRETS.sub(REDACTED, "\n".join(parts)), STACK_CHARACTERS)


def _printable(text: str) -> str:
    """The text, with escapes for what would end the line or change the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
