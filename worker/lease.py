"""The heartbeat: extends the lease of a running job, and learns that the job is to be cancelled or paused."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread

from sqlalchemy.exc import OperationalError

from nern.training import Interrupted
from service.clock import Clock
from service.settings import Settings
from service.store import jobs
from service.store.database import Database
from service.store.jobs import Lease, LeaseLost

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0


class Cancelled(Interrupted):
    """A client has asked to cancel the job."""


class Paused(Interrupted):
    """A client has asked to pause the job."""


class Stopped(Interrupted):
    """The worker has been told to stop."""


class Pulse:
    """What the heartbeat has learned about the job: whether the job is to be cancelled or paused, or the lease is lost.

    The training calls `cancellation` again and again, and so ends soon after the heartbeat has learned one of these. If the
    database does not answer for a while, the job goes on until its lease has expired.
    """

    def __init__(self, stopping: Event) -> None:
        self._stopping = stopping
        self.cancelled = Event()
        self.paused = Event()
        self.lost = Event()

    def cancellation(self) -> None:
        """Raises LeaseLost, Cancelled, Paused or Stopped if the training must end."""
        if self.lost.is_set():
            raise LeaseLost("the heartbeat found that the worker has lost its lease")
        if self.cancelled.is_set():
            raise Cancelled
        if self.paused.is_set():
            raise Paused
        if self._stopping.is_set():
            raise Stopped

    def persist(self, write: Callable[[], None]) -> None:
        """Calls `write`, again and again while the database does not answer. Raises LeaseLost when the lease has expired."""
        while True:
            try:
                return write()
            except OperationalError:
                log.warning("the database does not answer; the worker tries again", exc_info=True)
                if self.lost.wait(HEARTBEAT_SECONDS):
                    raise LeaseLost("the lease expired while the database did not answer") from None


@contextmanager
def kept_alive(database: Database, settings: Settings, lease: Lease, stopping: Event, clock: Clock) -> Iterator[Pulse]:
    """A block during which a thread extends the lease."""
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
                wish = jobs.heartbeat(session, lease, now=now, extend=extend)
            if wish == "cancel":
                pulse.cancelled.set()
            # A client may have asked to go on before the training has noticed that it is to pause.
            (pulse.paused.set if wish == "pause" else pulse.paused.clear)()
            expires = now + extend
        except LeaseLost:
            pulse.lost.set()
            return
        except Exception:  # for example, the database does not answer; the job may go on until the lease has expired
            log.exception("the heartbeat could not extend the lease of job %s", lease.job_id)
            if now > expires:
                pulse.lost.set()
                return
