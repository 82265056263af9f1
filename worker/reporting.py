"""Reports the progress of a training to the database, where clients see it."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy.orm import Session

from nern.report import finite, output_figures
from nern.training import Evaluation, Progress
from service.store import jobs
from service.store.database import Away, Database, now
from service.store.jobs import Lease
from service.store.tables import JobSnapshot, Json
from worker.lease import Pulse

log = logging.getLogger(__name__)

REPORT_SECONDS = 1.0


class Reporter:
    """The callback that a training calls after each step. It writes progress, and raises an exception if the training must end.

    The row of the job is written every REPORT_SECONDS. An event `progress` is recorded at each new percent, and an event
    `metrics` at each evaluation, so that the number of events does not grow with the length of a training.
    """

    def __init__(self, database: Database, lease: Lease, pulse: Pulse) -> None:
        self._database = database
        self._lease = lease
        self._pulse = pulse
        self._written = 0.0
        self._percent = -1
        self._progress: Json | None = None
        self._metrics: Json = {}
        # The events that are due: kinds, or the resumption. They stay here while the database does not answer.
        self._kinds: list[Literal["progress", "metrics"]] = []
        self._resumed: Json | None = None

    def __call__(self, progress: Progress) -> None:
        self._pulse.cancellation()
        self._progress = _as_json(progress)
        self._metrics = {**self._metrics, **progress.losses, **(_flat(progress.evaluation) if progress.evaluation else {})}
        due = time.monotonic() - self._written >= REPORT_SECONDS
        if not (due or progress.evaluation or progress.step == progress.steps or self._resumed):
            return
        self._written = time.monotonic()
        if progress.evaluation:
            self._kinds.append("metrics")
        if (percent := 100 * progress.step // progress.steps) != self._percent:
            self._percent = percent
            self._kinds.append("progress")
        self._try(lambda session, moment: self._report(session, moment, progress))

    def shown_at(self, step: int) -> tuple[Json | None, Json]:
        """What the job shows after a step that was made: its progress, or None if nothing was reported yet, and its metrics."""
        if self._progress is None:
            return None, self._metrics
        return self._progress | {"step": step, "fraction": step / self._progress["steps"]}, self._metrics

    def resume(self, snapshot: JobSnapshot | None, refused: Sequence[Json]) -> None:
        """To be called before a training goes on from a snapshot, or from its first step because all snapshots were refused.

        An event tells that when the training has made its next step. `refused` has the step of each refused snapshot, and why.
        """
        self._resumed = {"step": snapshot.step if snapshot else 0, "refused": list(refused)}
        self._progress, self._metrics = (snapshot.progress, snapshot.metrics) if snapshot else (None, {})

    def finish_resumption(self) -> None:
        """To be called after the training: records the event if the training had no step to make."""
        if self._resumed:
            self._try(self._report_resumption)

    def _report(self, session: Session, moment: datetime, progress: Progress) -> None:
        self._report_resumption(session, moment)
        assert self._progress is not None
        jobs.report_progress(
            session,
            self._lease,
            now=moment,
            progress=self._progress,
            metrics=self._metrics,
            estimated_finish_at=moment + timedelta(seconds=progress.seconds_left),
            kinds=self._kinds,
        )

    def _report_resumption(self, session: Session, moment: datetime) -> None:
        if self._resumed:
            jobs.report_resumption(session, self._lease, now=moment, resumed=self._resumed)

    def _try(self, write: Callable[[Session, datetime], None]) -> None:
        try:
            with self._database.write() as session:
                write(session, now(session))
            self._kinds, self._resumed = [], None
        except Away:
            log.warning("the database does not answer; the training goes on", exc_info=True)


def _as_json(progress: Progress) -> Json:
    return {
        "phase": progress.phase,
        "step": progress.step,
        "steps": progress.steps,
        "fraction": progress.step / progress.steps,
        "steps_per_second": progress.steps_per_second,
    }


def _flat(evaluation: Evaluation) -> dict[str, Any]:
    """The metrics of an evaluation: its fields in one dictionary, with None for numbers that are not finite."""
    values: dict[str, Any] = {"evaluated_at_step": evaluation.step, "relative_error": finite(evaluation.relative_error)}
    if (comparison := evaluation.comparison) is None:
        return values
    names = ("images", "agreement", "divergence", "original_accuracy", "accuracy")
    values |= {name: finite(getattr(comparison, name)) for name in names}
    return values | {"outputs": [output_figures(output) for output in comparison.outputs]}
