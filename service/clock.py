"""The time of this machine. What several machines must agree on takes `service.store.database.now`."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The time of this machine's clock, in UTC, as an aware datetime (one with a time zone)."""
    return datetime.now(UTC)
