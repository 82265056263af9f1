"""Whether this machine can work on jobs at all. A worker looks before it claims a job."""

import logging
import shutil
import tempfile
import time

import torch

from service.store import migrate
from service.store.blobs import Blobs, Unreachable
from service.store.database import Database
from service.store.marking import WrongBlobStore, check
from service.store.migrate import Incompatible

log = logging.getLogger(__name__)

# A worker writes checkpoints, datasets, snapshots and artefacts to temporary files.
MIN_FREE_BYTES = 256 * 2**20

# A worker that is fit looks again after this time.
FIT_SECONDS = 30.0

# A worker that is not looks again after 1 s, then after 2 s, and so on up to this time.
LONGEST_PAUSE_SECONDS = 60.0


class Fitness:
    """What a worker knows about its machine.

    fault: what is wrong with the machine, as a sentence; None if nothing is.
    """

    def __init__(self, database: Database, store: Blobs, device: torch.device) -> None:
        self._database = database
        self._store = store
        self._device = device
        self._next = 0.0
        self._pause = 1.0
        self.fault: str | None = None

    def check(self) -> bool:
        """Whether the machine is fit, by the latest look. Looks again if that is due."""
        if time.monotonic() >= self._next:
            self.look()
        return self.fault is None

    def look(self) -> str | None:
        """Looks now, and returns what is wrong."""
        before, self.fault = self.fault, unfit(self._database, self._store, self._device)
        if self.fault is None:
            self._next, self._pause = time.monotonic() + FIT_SECONDS, 1.0
            if before:
                log.info("this worker can work again")
            return None
        log.error("this worker claims no jobs: %s; it looks again in %g s", self.fault, self._pause)
        self._next = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        return self.fault

    def doubt(self) -> None:
        """Makes the next check look: something went wrong that may be the fault of the machine."""
        if self.fault is None:
            self._next = 0.0


def unfit(database: Database, store: Blobs, device: torch.device) -> str | None:
    """What is wrong with this machine, as a sentence for clients; None if nothing is. Raises Away."""
    try:
        migrate.probe(database)
        check(database, store)
    except (Incompatible, WrongBlobStore) as error:
        return str(error)
    except Unreachable:
        log.warning("the blob store does not answer", exc_info=True)
        return "the blob store does not answer"
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
            file.flush()
        free = shutil.disk_usage(tempfile.gettempdir()).free
    except OSError as error:
        return f"temporary files can't be written: {error.strerror or error}"
    if free < MIN_FREE_BYTES:
        return f"the folder for temporary files has {free // 2**20} MiB left; {MIN_FREE_BYTES // 2**20} MiB are needed"
    try:
        torch.ones(1, device=device).sum().item()
    except RuntimeError:
        log.warning("the device does not compute", exc_info=True)
        return f"the device {device} does not compute; the log of the worker describes the error"
    return None
