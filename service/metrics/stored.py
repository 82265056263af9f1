"""Metrics of what the database knows. Every API process has the same ones, so queries take the largest (`max`)."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Lock, Thread

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service.store import watched
from service.store.database import Database, now
from service.store.watched import Figures, Training

log = logging.getLogger(__name__)

# The database is read at most so often, however often it is asked.
KEPT_SECONDS = 10.0

# How long a scrape waits for the database. Prometheus gives up after ten seconds.
ANSWER_SECONDS = 3.0

# Trainings that have series of their own.
MAX_TRAININGS = 100

# The numbers in the metrics of a job that are losses.
LOSSES = ("statistics", "classes", "smoothness", "reconstruction", "feature_maps", "distillation")

DEVICES = ("cpu", "cuda")


class DatabaseMetrics(Collector):
    """A collector that reads the database, in a thread. If the database does not answer, `nern_database_up` alone says so."""

    def __init__(self, database: Database, seconds: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._seconds = seconds
        self._lock = Lock()
        self._asked = float("-inf")
        self._reading = Thread()
        self._figures: Figures | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        figures = self._current()
        yield GaugeMetricFamily("nern_database_up", "Whether the database answers (1) or not (0)", value=figures is not None)
        if figures:
            yield from _families(figures)

    def _current(self) -> Figures | None:
        with self._lock:
            if self._seconds() - self._asked >= KEPT_SECONDS and not self._reading.is_alive():
                self._asked = self._seconds()
                self._reading = Thread(target=self._read, name="metrics", daemon=True)
                self._reading.start()
            reading = self._reading
        reading.join(ANSWER_SECONDS)
        return None if reading.is_alive() else self._figures

    def _read(self) -> None:
        try:
            with self._database.read() as session:
                self._figures = watched.figures(session, now(session), limit=MAX_TRAININGS)
        except Exception:  # whatever it is, the other metrics must still be read
            log.warning("the database could not be read for the metrics", exc_info=True)
            self._figures = None


def _families(figures: Figures) -> Iterator[GaugeMetricFamily]:
    queue = GaugeMetricFamily("nern_jobs", "Jobs that are not over", labels=["state", "device"])
    queue.add_metric(["queued", ""], figures.queued)
    queue.add_metric(["paused", ""], figures.paused)
    for device in sorted({*DEVICES, *figures.running}):
        queue.add_metric(["running", device], figures.running[device])
    yield queue
    yield GaugeMetricFamily(
        "nern_oldest_queued_job_age_seconds",
        "For how long the job has been queued that has waited for the longest, 0 if none waits",
        value=figures.oldest_seconds,
    )
    workers = GaugeMetricFamily("nern_workers", "Workers that are alive", labels=["device", "state"])
    for device in sorted({*DEVICES, *(device for device, _ in figures.workers)}):
        for state in ("idle", "busy", "faulty"):
            workers.add_metric([device, state], figures.workers[device, state])
    yield workers
    yield from _training_families(figures.trainings)


def _training_families(trainings: Sequence[Training]) -> Iterator[GaugeMetricFamily]:
    attempt = GaugeMetricFamily("nern_job_attempt", "Number of the attempt at a job that runs", labels=["job_id"])
    progress = GaugeMetricFamily("nern_job_progress_ratio", "Fraction of its steps that a job has made", labels=["job_id"])
    speed = GaugeMetricFamily("nern_job_steps_per_second", "Speed of the training of a job", labels=["job_id"])
    loss = GaugeMetricFamily("nern_job_loss", "Latest value of a loss of a job", labels=["job_id", "loss"])
    unsaved = GaugeMetricFamily(
        "nern_job_unsaved_seconds", "Time since the newest snapshot of a job, or since its claim", labels=["job_id"]
    )
    for training in trainings:
        id = training.job_id
        attempt.add_metric([id], training.attempt)
        unsaved.add_metric([id], training.unsaved_seconds)
        if training.progress:
            progress.add_metric([id], training.progress["fraction"])
            speed.add_metric([id], training.progress["steps_per_second"])
        for name in LOSSES:
            if (value := (training.metrics or {}).get(name)) is not None:
                loss.add_metric([id, name], value)
    yield from (attempt, progress, speed, loss, unsaved)
