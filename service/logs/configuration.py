"""Sets the log of a process up: that of our own code, of the libraries, and of what nobody has caught."""

import logging
import sys
import threading
from types import TracebackType
from typing import NoReturn

from pydantic import ValidationError

from service.logs.bounded import BoundedHandler
from service.logs.formats import JsonFormatter, TextFormatter
from service.settings import LogSettings

log = logging.getLogger(__name__)

# NERN_LOG_LEVEL is the level of these. Libraries tell too much below INFO, secrets among it.
OURS = ("nern", "service", "worker", "migrations")

# Alembic tells the kind of the database at every readiness probe. httpx tells URLs of webhooks, which may hold secrets. uvicorn
# tells of requests with their queries; `service.http.access_log` does so without.
QUIET = ("alembic", "httpx", "httpcore", "uvicorn.access")


def configure() -> LogSettings:
    """Writes the log of this process to its standard error, as NERN_LOG_FORMAT and NERN_LOG_LEVEL say, from now on.

    Returns these settings. If they are wrong, the log is text, and `Settings.load` tells what is wrong.
    """
    try:
        settings = LogSettings()
    except ValidationError:
        settings = LogSettings.model_construct()
    handler = BoundedHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.getLogger().handlers[:] = [handler]
    for name, level in levels(logging.getLevelNamesMapping()[settings.log_level.upper()]).items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _on_uncaught
    threading.excepthook = _on_uncaught_in_thread
    return settings


def levels(wanted: int) -> dict[str, int]:
    """The level of each logger for a wanted one, and that of all others as the level of the root, whose name is empty."""
    ours = dict.fromkeys(OURS, wanted)
    return {"": max(wanted, logging.INFO), **ours, **dict.fromkeys(QUIET, max(wanted, logging.WARNING))}


def give_up(message: str) -> NoReturn:
    """Ends this process with status 1 and a message, which is a line of the log if the log is JSON."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers):
        log.critical("%s", message)
        sys.exit(1)
    sys.exit(message)


def _on_uncaught(kind: type[BaseException], error: BaseException, stack: TracebackType | None) -> None:
    log.critical("nobody has caught an exception; this process ends", exc_info=(kind, error, stack))


def _on_uncaught_in_thread(about: threading.ExceptHookArgs) -> None:
    name = about.thread.name if about.thread else "?"
    if about.exc_value is not None:
        exc_info = (about.exc_type, about.exc_value, about.exc_traceback)
        log.critical("nobody has caught an exception; the thread %s ends", name, exc_info=exc_info)
