"""Keeping a lease alive while a job runs, and hearing of cancellation."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread

from sqlalchemy.exc import OperationalError

from service.clock import Clock
from service.settings import Settings
from service.store import jobs
from service.store.database import Database
from service.store.jobs import Lease, LeaseLost

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0


class Cancelled(Exception):
    """The job's owner does not want it any more."""


class Stopped(Exception):
    """This worker is to stop."""


class Pulse:
    """What the heartbeat has learned; `cancellation` raises it in the thread that trains.

    The database may go away and come back: a job outlives that as long as its lease does.
    """

    def __init__(self, stopping: Event) -> None:
        self._stopping = stopping
        self.cancelled = Event()
        self.lost = Event()

    def cancellation(self) -> None:
        """Raises LeaseLost, Cancelled or Stopped if the work must end."""
        if self.lost.is_set():
            raise LeaseLost("the heartbeat found the lease gone")
        if self.cancelled.is_set():
            raise Cancelled
        if self._stopping.is_set():
            raise Stopped

    def persist(self, write: Callable[[], None]) -> None:
        """Writes what must be written, again and again while the database is away. Raises LeaseLost."""
        while True:
            try:
                return write()
            except OperationalError:
                log.warning("the database does not answer; trying again", exc_info=True)
                if self.lost.wait(HEARTBEAT_SECONDS):
                    raise LeaseLost("the lease ended while the database was away") from None


@contextmanager
def kept_alive(database: Database, settings: Settings, lease: Lease, stopping: Event, clock: Clock) -> Iterator[Pulse]:
    """Extends the lease in a thread for as long as the block runs."""
    pulse, done = Pulse(stopping), Event()
    thread = Thread(target=_beat, args=(database, settings, lease, pulse, done, clock), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield pulse
    finally:
        done.set()
        thread.join()


def _beat(database: Database, settings: Settings, lease: Lease, pulse: Pulse, done: Event, clock: Clock) -> None:
    extend = timedelta(seconds=settings.lease_seconds)
    expires = clock() + extend
    while not done.wait(min(HEARTBEAT_SECONDS, settings.lease_seconds / 3)):
        now = clock()
        try:
            with database.write() as session:
                if jobs.heartbeat(session, lease, now=now, extend=extend):
                    pulse.cancelled.set()
            expires = now + extend
        except LeaseLost:
            pulse.lost.set()
            return
        except Exception:  # the database may be away for a moment; the lease bounds how long that may take
            log.exception("heartbeat failed")
            if now > expires:
                pulse.lost.set()
                return
