"""The time. Code that needs the time is handed a `Clock`, so that a test can set the time."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the current time, with its time zone."""


def utc_now() -> datetime:
    """The clock of this machine, in UTC."""
    return datetime.now(UTC)
