"""Reports the progress of a training to the database, where clients see it."""

import logging
import time
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy.exc import OperationalError

from nern.report import finite, output_figures
from nern.training import Evaluation, Progress
from service.clock import Clock
from service.store import jobs
from service.store.database import Database
from service.store.jobs import Lease
from worker.lease import Pulse

log = logging.getLogger(__name__)

REPORT_SECONDS = 0.5


class Reporter:
    """The callback that a training calls after each step. It writes progress, and raises an exception if the training must end.

    The row of the job is written every REPORT_SECONDS. An event `progress` is recorded at each new percent, and an event
    `metrics` at each evaluation, so that the number of events does not grow with the length of a training.
    """

    def __init__(self, database: Database, lease: Lease, pulse: Pulse, clock: Clock) -> None:
        self._database = database
        self._lease = lease
        self._pulse = pulse
        self._clock = clock
        self._written = 0.0
        self._percent = -1
        self._metrics: dict[str, Any] = {}
        # Kinds of the events that are due. They stay here while the database does not answer.
        self._kinds: list[Literal["progress", "metrics"]] = []

    def __call__(self, progress: Progress) -> None:
        self._pulse.cancellation()
        due = time.monotonic() - self._written >= REPORT_SECONDS
        if not (due or progress.evaluation or progress.step == progress.steps):
            return
        self._written = time.monotonic()
        self._metrics |= progress.losses
        if progress.evaluation:
            self._metrics |= _flat(progress.evaluation)
            self._kinds.append("metrics")
        if (percent := 100 * progress.step // progress.steps) != self._percent:
            self._percent = percent
            self._kinds.append("progress")
        try:
            self._write(progress)
        except OperationalError:
            log.warning("the database does not answer; the training goes on", exc_info=True)

    def _write(self, progress: Progress) -> None:
        now = self._clock()
        with self._database.write() as session:
            jobs.report_progress(
                session,
                self._lease,
                now=now,
                progress={
                    "phase": progress.phase,
                    "step": progress.step,
                    "steps": progress.steps,
                    "fraction": progress.step / progress.steps,
                    "steps_per_second": progress.steps_per_second,
                },
                metrics=self._metrics,
                estimated_finish_at=now + timedelta(seconds=progress.seconds_left),
                kinds=self._kinds,
            )
        self._kinds = []


def _flat(evaluation: Evaluation) -> dict[str, Any]:
    """The metrics of an evaluation: its fields in one dictionary, with None for numbers that are not finite."""
    values: dict[str, Any] = {"evaluated_at_step": evaluation.step, "relative_error": finite(evaluation.relative_error)}
    if (comparison := evaluation.comparison) is None:
        return values
    names = ("images", "agreement", "divergence", "original_accuracy", "accuracy")
    values |= {name: finite(getattr(comparison, name)) for name in names}
    return values | {"outputs": [output_figures(output) for output in comparison.outputs]}
