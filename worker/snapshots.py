"""Snapshots of one attempt: stored while the training goes on, so that the next attempt loses seconds and not hours."""

import hashlib
import logging
import time
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from nern.errors import BadSnapshot
from nern.training import Snapshot
from service.metrics.counted import SNAPSHOTS
from service.store import blobs, snapshots
from service.store.blobs import Blobs, Missing, Unreachable
from service.store.database import Away, Database, now
from service.store.jobs import Lease, LeaseLost
from service.store.tables import JobSnapshot, Json
from worker.reporting import Reporter

log = logging.getLogger(__name__)

# The largest part of a training's time that its snapshots take.
MAX_SHARE = 0.02

# So soon the next snapshot is due after one that could not be stored.
RETRY_SECONDS = 1.0

# How long a worker that is to stop waits for a blob store that does not answer: once for a snapshot that is being stored, and
# once for the last one. A worker has ten seconds to end.
END_SECONDS = 4.0

# Progress and metrics of the job.
Shown = tuple[Json | None, Json]


class SnapshotWriter:
    """Stores snapshots of a training in the blob store, each with a row in the database.

    A thread writes while the training goes on; the training waits only for the copy of its tensors. A snapshot is due `seconds`
    after the one before was taken, or later if snapshots would take a larger part of the time than MAX_SHARE. A snapshot that
    can't be stored is logged, the training goes on, and the next one is due after RETRY_SECONDS.

    step: the number of steps of the latest stored snapshot, of this attempt or of an earlier one.
    """

    def __init__(self, store: Blobs, database: Database, lease: Lease, reporter: Reporter, *, seconds: float) -> None:
        self._store = store
        self._database = database
        self._lease = lease
        self._reporter = reporter
        self._seconds = seconds
        self.step = 0
        self._due = time.monotonic() + seconds
        self._writing: Thread | None = None

    def offer(self, steps: int, snapshot: Callable[[], Snapshot]) -> None:
        """Stores the snapshot after so many steps if one is due. Returns before it is stored."""
        if steps <= self.step or time.monotonic() < self._due or (self._writing and self._writing.is_alive()):
            return
        moment, started = time.monotonic(), time.perf_counter()
        taken, shown = snapshot().detached(), self._reporter.shown_at(steps)
        self._write_in_background(taken, shown, moment, copying=time.perf_counter() - started)

    def write(self, snapshot: Snapshot) -> None:
        """Stores a detached snapshot now, unless it is stored already. Gives up after END_SECONDS, and so returns soon."""
        self.close(END_SECONDS)
        if snapshot.steps > self.step and not (self._writing and self._writing.is_alive()):
            self._write_in_background(snapshot, self._reporter.shown_at(snapshot.steps), time.monotonic(), copying=0.0)
            self.close(END_SECONDS)

    def close(self, seconds: float | None = None) -> None:
        """Waits until the snapshot that is being stored is stored, or for so many seconds."""
        if self._writing:
            self._writing.join(seconds)

    def _write_in_background(self, snapshot: Snapshot, shown: Shown, moment: float, *, copying: float) -> None:
        """`moment`: when the snapshot was taken. `copying`: the seconds that its copy took."""
        write = partial(copy_context().run, self._write_and_pause, snapshot, shown, moment, copying)
        self._writing = Thread(target=write, name="snapshot", daemon=True)
        self._writing.start()

    def _write_and_pause(self, snapshot: Snapshot, shown: Shown, moment: float, copying: float) -> None:
        stored = self._try_to_write(snapshot, shown)
        SNAPSHOTS.labels("stored" if stored else "failed").inc()
        # The time of this thread alone: while it waits for the blob store, the training goes on.
        cost = copying + time.thread_time()
        due = moment + self._seconds if stored else time.monotonic() + min(RETRY_SECONDS, self._seconds)
        self._due = max(due, moment + cost / MAX_SHARE)

    def _try_to_write(self, snapshot: Snapshot, shown: Shown) -> bool:
        """Returns whether the snapshot is stored."""
        try:
            self._write(snapshot, shown)
        except LeaseLost:
            log.warning("the lease was lost before a snapshot was stored")
        except (Unreachable, Away, OSError):
            log.warning("a snapshot could not be stored; the training goes on", exc_info=True)
        else:
            return True
        return False

    def _write(self, snapshot: Snapshot, shown: Shown) -> None:
        job_id, step = self._lease.job_id, snapshot.steps
        with TemporaryDirectory() as folder:
            path = Path(folder) / "snapshot.safetensors"
            snapshot.write(path)
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if self._store.owner is None:
                raise Unreachable("the blob store is not that of the service, or is not mounted")
            self._store.upload(blobs.snapshot(job_id, self._lease.fence, step), path)
            size = path.stat().st_size
        progress, metrics = shown
        with self._database.write() as session:
            old = snapshots.add(
                session,
                self._lease,
                step=step,
                sha256=sha256,
                size=size,
                progress=progress,
                metrics=metrics,
                now=now(session),
            )
        self.step = step
        for row in old:
            self._store.remove(blobs.snapshot(job_id, row.fence, row.step))


def read_snapshot(store: Blobs, row: JobSnapshot) -> Snapshot:
    """The snapshot of a row. Raises BadSnapshot if its blob is lost, damaged or of another release, and Unreachable."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "snapshot.safetensors"
        try:
            store.download(blobs.snapshot(row.job_id, row.fence, row.step), path)
        except Missing:
            raise BadSnapshot("the snapshot is not in the blob store") from None
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != row.sha256:
                raise BadSnapshot("the snapshot is damaged: it has another SHA-256 hash than when it was stored")
        return Snapshot.read(path)
