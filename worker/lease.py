"""The heartbeat: extends the lease of a running job, and learns that the job is to be cancelled or paused."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from math import inf
from threading import Event, Thread

from nern.training import Interrupted
from service.settings import Settings
from service.store import jobs
from service.store.database import Away, Database, now
from service.store.jobs import Lease, LeaseLost

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0

# How often a training whose lease has expired looks whether it may go on.
WAITING_SECONDS = 0.1


class Cancelled(Interrupted):
    """A client has asked to cancel the job."""


class Paused(Interrupted):
    """A client has asked to pause the job."""


class Stopped(Interrupted):
    """The worker has been told to stop."""


class Pulse:
    """What the heartbeat has learned about the job: whether the job is to be cancelled or paused, or the lease is lost.

    The training calls `cancellation` again and again, and so ends soon after the heartbeat has learned one of these.
    """

    def __init__(self, stopping: Event, expires: float = inf) -> None:
        """`expires`: when the lease expires, by `time.monotonic`, unless the heartbeat extends it."""
        self._stopping = stopping
        self.expires = expires
        self.cancelled = Event()
        self.paused = Event()
        self.lost = Event()

    def cancellation(self) -> None:
        """Raises LeaseLost, Cancelled, Paused or Stopped if the training must end.

        If the lease has expired because the database does not answer, waits until the database says whether another worker has
        taken the job. The training goes on if no other worker has.
        """
        while time.monotonic() > self.expires and not self.lost.is_set() and not self._stopping.is_set():
            self.lost.wait(WAITING_SECONDS)
        if self.lost.is_set():
            raise LeaseLost("the heartbeat found that the worker has lost its lease")
        if self.cancelled.is_set():
            raise Cancelled
        if self.paused.is_set():
            raise Paused
        if self._stopping.is_set():
            raise Stopped

    def persist(self, write: Callable[[], None]) -> None:
        """Calls `write`, again and again while the database does not answer. Raises what `cancellation` raises."""
        while True:
            try:
                return write()
            except Away:
                log.warning("the database does not answer; the worker tries again", exc_info=True)
                self.lost.wait(HEARTBEAT_SECONDS)
                self.cancellation()


@contextmanager
def kept_alive(database: Database, settings: Settings, lease: Lease, stopping: Event) -> Iterator[Pulse]:
    """A block during which a thread extends the lease."""
    pulse, done = Pulse(stopping, time.monotonic() + settings.lease_seconds), Event()
    beat = partial(copy_context().run, _beat, database, settings, lease, pulse, done)
    thread = Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield pulse
    finally:
        done.set()
        thread.join()


def _beat(database: Database, settings: Settings, lease: Lease, pulse: Pulse, done: Event) -> None:
    while not done.wait(min(HEARTBEAT_SECONDS, settings.lease_seconds / 3)):
        asked = time.monotonic()
        try:
            with database.write() as session:
                wish = jobs.heartbeat(session, lease, now=now(session), extend=timedelta(seconds=settings.lease_seconds))
        except LeaseLost:
            pulse.lost.set()
            return
        except Exception:  # for example, the database does not answer
            log.exception("the heartbeat could not extend the lease")
            continue
        pulse.expires = asked + settings.lease_seconds
        if wish == "cancel":
            pulse.cancelled.set()
        # A client may have asked to go on before the training has noticed that it is to pause.
        (pulse.paused.set if wish == "pause" else pulse.paused.clear)()
