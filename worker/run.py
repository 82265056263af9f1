"""A worker: claims one job after the other, and ends or gives back what it has claimed."""

import logging
from datetime import timedelta
from threading import Event
from typing import Literal

import torch
from sqlalchemy.exc import OperationalError

from nern.errors import NernError
from nern.faults import is_device_fault, is_out_of_memory
from service.clock import Clock, utc_now
from service.settings import Settings
from service.store import ids, jobs
from service.store.blobs import Blobs, Unreachable
from service.store.database import Database
from service.store.failures import FailureType
from service.store.jobs import Lease, LeaseLost
from service.store.tables import Json
from worker.attempt import Attempt
from worker.failures import failure_type
from worker.lease import Cancelled, Paused, Pulse, Stopped, kept_alive

log = logging.getLogger(__name__)


class DeviceFailed(Exception):
    """The GPU failed. This process can't use the GPU from then on, but another process may be able to."""


class Worker:
    """A worker, one for each process. Its owner id, which is new for each worker, marks its leases."""

    def __init__(self, settings: Settings, stopping: Event, *, clock: Clock = utc_now) -> None:
        self._settings = settings
        self._stopping = stopping
        self._clock = clock
        self._owner = ids.new_id()
        self._database = Database(settings.database)
        self._blobs = Blobs(settings.blobs)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._device = device(settings.device)

    def work(self, prefer: str | None = None) -> bool:
        """Claims one job and works on it until it ends: the job `prefer` if it is queued, or else the oldest queued job.

        Returns False if no job was claimed. Raises DeviceFailed; the sweep returns the job to the queue when its lease has
        expired.
        """
        with self._database.write() as session:
            lease = jobs.claim(
                session,
                owner=self._owner,
                now=self._clock(),
                lease=timedelta(seconds=self._settings.lease_seconds),
                prefer=prefer,
            )
        if lease is None:
            return False
        log.info("job %s: claimed under fence %d", lease.job_id, lease.fence)
        try:
            with kept_alive(self._database, self._settings, lease, self._stopping, self._clock) as pulse:
                self._run(lease, pulse)
        except LeaseLost:
            log.warning("job %s: another worker holds the job, or the job is over; this worker leaves it", lease.job_id)
        except (OperationalError, Unreachable):
            log.exception(
                "job %s: the database or the blob store does not answer; the job is queued again when its lease has expired",
                lease.job_id,
            )
        return True

    def _run(self, lease: Lease, pulse: Pulse) -> None:
        try:
            Attempt(self._settings, self._database, self._blobs, self._device, lease, pulse, self._clock).run()
            log.info("job %s: succeeded", lease.job_id)
        except Cancelled:
            self._finish(lease, "cancelled")
        except (Paused, Stopped) as reason:
            why = "a client has paused it" if isinstance(reason, Paused) else "this worker stops"
            log.info("job %s: given back, because %s", lease.job_id, why)
            with self._database.write() as session:
                jobs.give_back(session, lease, now=self._clock())
        except NernError as error:
            self._finish(lease, "failed", failure_type(error), str(error))
        except FileNotFoundError:
            self._finish(lease, "failed", "input-missing", "the checkpoint or the dataset is not in the blob store")
        except (LeaseLost, OperationalError, Unreachable):
            raise
        except Exception as error:  # a fault in one job must not end the worker
            if is_device_fault(error):
                raise DeviceFailed(f"job {lease.job_id}: {error}") from error
            log.exception("job %s: failed", lease.job_id)
            if is_out_of_memory(error):
                self._finish(lease, "failed", "out-of-memory", "the training needs more memory than the worker has")
            else:
                self._finish(lease, "failed", "internal", "the service has a fault, which the worker has logged")

    def _finish(
        self,
        lease: Lease,
        state: Literal["failed", "cancelled"],
        type: FailureType | None = None,
        detail: str | None = None,
    ) -> None:
        log.info("job %s: %s %s", lease.job_id, state, detail or "")
        error: Json | None = {"type": type, "detail": detail} if type else None
        with self._database.write() as session:
            jobs.finish(session, lease, state, now=self._clock(), error=error)


def device(setting: str) -> torch.device:
    """The device that a value of `NERN_DEVICE` stands for. Raises SystemExit if this machine has no such device."""
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked = torch.device(setting)
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        raise SystemExit(f"NERN_DEVICE is {setting}, but torch finds {torch.cuda.device_count()} CUDA devices on this machine")
    return asked
