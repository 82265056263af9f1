"""A worker: claims one job after the other, and ends or gives back what it has claimed."""

import logging
from contextlib import AbstractContextManager
from datetime import timedelta
from threading import Event
from typing import Literal

import torch

from nern.errors import NernError
from nern.faults import is_device_fault, is_out_of_memory
from service.logs.context import within
from service.metrics.counted import ATTEMPTS, QUEUE_SECONDS
from service.settings import Settings
from service.store import ids, jobs, origins
from service.store.blobs import Blobs, Missing, Unreachable
from service.store.database import Away, Database, now
from service.store.failures import FailureType
from service.store.jobs import Lease, LeaseLost
from service.store.tables import Json
from worker import spans
from worker.attempt import Attempt
from worker.failures import failure_type
from worker.fitness import Fitness
from worker.lease import Cancelled, Paused, Pulse, Stopped, kept_alive
from worker.presence import announced, describe

log = logging.getLogger(__name__)


class Unsound(Exception):
    """Something failed that may fail again in this process, and not in another one: the GPU, or something unforeseen."""


class NoSuchDevice(Exception):
    """This machine does not have the device of NERN_DEVICE."""


class Worker:
    """A worker, one for each process. Its id, which is new for each worker, marks its leases."""

    def __init__(self, settings: Settings, stopping: Event) -> None:
        self._settings = settings
        self._stopping = stopping
        self._id = ids.new_id()
        self._database = Database(settings.database)
        self._blobs = Blobs(settings.blobs, make=settings.blob_url is None)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._device = device(settings.device)
        self._fitness = Fitness(self._database, self._blobs, self._device)
        self._about = describe(self._device)

    def announced(self) -> AbstractContextManager[None]:
        """A block in which this worker is listed as alive. Raises Away."""
        return announced(self._database, self._id, self._about, self._device, lambda: self._fitness.fault)

    def work(self) -> bool:
        """Claims one job and works on it until it ends.

        Returns False if no job was claimed, for example because something is wrong with this machine. Raises Unsound and Away.
        """
        if not self._fitness.check():
            return False
        with self._database.write() as session:
            lease = jobs.claim(
                session,
                holder=self._id,
                now=now(session),
                lease=timedelta(seconds=self._settings.lease_seconds),
                where=self._about,
                max_running=self._settings.owner_running_jobs,
            )
            origin = origins.of(session, lease) if lease else None
        if lease is None or origin is None:
            return False
        if lease.fence == 1:
            QUEUE_SECONDS.observe(origin.waited.total_seconds())
        with within(**origin.about(lease)), spans.of_attempt(lease, origin):
            self._attempt(lease)
        return True

    def _attempt(self, lease: Lease) -> None:
        log.info("the job is claimed")
        try:
            with kept_alive(self._database, self._settings, lease, self._stopping) as pulse:
                self._run(lease, pulse)
        except LeaseLost:
            _ended("lost")
            log.warning("another worker holds the job, or the job is over; this worker leaves it")
        except Away:
            _ended("lost", "the database does not answer")
            log.exception("the database does not answer; the job is queued again when it does")

    def _run(self, lease: Lease, pulse: Pulse) -> None:
        try:
            Attempt(self._settings, self._database, self._blobs, self._device, lease, pulse).run()
            _ended("succeeded")
            log.info("the job has succeeded")
        except Cancelled:
            self._finish(lease, "cancelled")
        except (Paused, Stopped) as reason:
            why = "a client has paused it" if isinstance(reason, Paused) else "this worker stops"
            log.info("the job is given back, because %s", why)
            self._give_back(lease)
        except NernError as error:
            self._finish(lease, "failed", failure_type(error), str(error))
        except Missing:
            if (fault := self._fitness.look()) is None:
                self._finish(lease, "failed", "input-missing", "the checkpoint or the dataset is not in the blob store")
            else:
                self._return(lease, fault)
        except Unreachable:
            self._return(lease, "the blob store does not answer")
        except OSError as error:
            self._return(lease, f"the worker can't use its files: {error.strerror or type(error).__name__}")
        except (LeaseLost, Away):
            raise
        except Exception as error:  # whatever it is, the job must not be lost
            if is_out_of_memory(error):
                self._finish(lease, "failed", "out-of-memory", "the training needs more memory than the worker has")
                return
            log.exception("an unforeseen error")
            failed = "the GPU of the worker failed" if is_device_fault(error) else "the worker met with an unforeseen error"
            self._try_elsewhere(lease, failed)
            raise Unsound(f"job {lease.job_id}: {failed}") from error

    def _try_elsewhere(self, lease: Lease, failed: str) -> None:
        """Gives back a job that another process may succeed with. The attempt is counted, so the job ends if none does."""
        with self._database.read() as session:
            again = jobs.may_try_again(session, lease, max_attempts=self._settings.max_attempts)
        if again:
            self._give_back(lease, fault=failed, counted=True)
            return
        self._finish(lease, "failed", "internal", f"{failed} in each attempt; its log describes the error")

    def _return(self, lease: Lease, fault: str) -> None:
        """Gives back a job because something is wrong with this machine."""
        log.error("the job is given back: %s", fault, exc_info=True)
        self._fitness.doubt()
        self._give_back(lease, fault=fault)

    def _give_back(self, lease: Lease, *, fault: str | None = None, counted: bool = False) -> None:
        with self._database.write() as session:
            jobs.give_back(session, lease, now=now(session), fault=fault, counted=counted)
        _ended("given_back", fault)

    def _finish(
        self,
        lease: Lease,
        state: Literal["failed", "cancelled"],
        type: FailureType | None = None,
        detail: str | None = None,
    ) -> None:
        log.info("the job is %s: %s" if detail else "the job is %s", *filter(None, (state, detail)))
        error: Json | None = {"type": type, "detail": detail} if type else None
        with self._database.write() as session:
            jobs.finish(session, lease, state, now=now(session), error=error)
        _ended(state, detail)


def _ended(outcome: str, why: str | None = None) -> None:
    """Counts the end of the attempt at hand, and tells it in its span."""
    ATTEMPTS.labels(outcome).inc()
    spans.end(outcome, why)


def device(setting: str) -> torch.device:
    """The device that a value of `NERN_DEVICE` stands for. Raises NoSuchDevice."""
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked = torch.device(setting)
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        raise NoSuchDevice(
            f"NERN_DEVICE is {setting}, but torch finds {torch.cuda.device_count()} CUDA devices on this machine"
        )
    return asked
