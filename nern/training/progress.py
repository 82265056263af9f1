"""The progress of a training, and the estimate of the time that is left."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

from nern.plan import Plan
from nern.request.phases import PhaseName, PhasePlan
from nern.training.selection import Evaluation
from nern.training.snapshot import Snapshot


def _no_snapshot() -> Snapshot:
    raise ValueError("there are no snapshots after the last step of the training")


@dataclass(frozen=True)
class Progress:
    """The state of a training after a step.

    step, steps: the steps that were made, and all steps. They count the steps of all phases and all trials, and one step for
        each pruned network of the report.
    losses: the losses of this step, by name.
    evaluation: the evaluation after this step, or None if there was none.
    steps_per_second: the steps of this phase, divided by their time.
    seconds_left: an estimate of the time that the remaining steps take.
    snapshot: returns a snapshot after this step. It may be called only before the next step.
    """

    phase: PhaseName
    step: int
    steps: int
    losses: Mapping[str, float]
    evaluation: Evaluation | None
    steps_per_second: float
    seconds_left: float
    snapshot: Callable[[], Snapshot] = _no_snapshot


OnProgress = Callable[[Progress], None]


def silently(progress: Progress) -> None:
    """An `on_progress` that does nothing."""


class Meter:
    """Measures the steps of one training, which may be a trial of a search, and reports the progress.

    The time left is estimated from the steps that were made. Every step left is assumed to take as long as the steps of the
    current phase did, and a later trial as long as this one.
    """

    def __init__(self, plan: Plan, *, trials: int = 1, trials_before: int = 0, steps_before: int = 0) -> None:
        """A meter for one of `trials` trials.

        `trials_before` is the number of finished trials. `steps_before` is the number of steps of this trial that were made
        before the snapshot.
        """
        self._plan = plan
        self._trials = trials
        self._trials_before = trials_before
        self._step = steps_before
        self._started = self._phase_started = monotonic()
        self._phase_steps = 0

    def begin(self) -> None:
        """Starts the clock of a phase. To be called before its first step, and before its first step after a snapshot."""
        self._phase_started, self._phase_steps = monotonic(), 0

    def step(
        self,
        phase: PhasePlan,
        losses: Mapping[str, float],
        evaluation: Evaluation | None,
        snapshot: Callable[[], Snapshot],
        *,
        made: int = 1,
    ) -> Progress:
        """The progress after one more step of `phase`. To be called after every step.

        `made` is 0 for an evaluation that follows the last step before a snapshot.
        """
        self._step += made
        self._phase_steps += made
        now = monotonic()
        pace = (now - self._phase_started) / max(self._phase_steps, 1)
        left = (self._plan.steps - self._step) * pace
        trials_left = self._trials - self._trials_before - 1
        return Progress(
            phase=phase.name,
            step=self._trials_before * self._plan.steps + self._step,
            steps=self._trials * self._plan.steps + self._plan.pruned_networks,
            losses=losses,
            evaluation=evaluation,
            steps_per_second=1 / pace,
            seconds_left=left + trials_left * (now - self._started + left),
            snapshot=snapshot,
        )


def of_pruning(plan: Plan, *, steps: int, networks: int, seconds: float) -> Progress:
    """The progress after the last of `steps` steps, when `networks` pruned networks have been evaluated.

    `seconds` is the time that these evaluations took.
    """
    pace = seconds / networks
    return Progress(
        phase="importance",
        step=steps + networks,
        steps=steps + plan.pruned_networks,
        losses={},
        evaluation=None,
        steps_per_second=1 / pace,
        seconds_left=pace * (plan.pruned_networks - networks),
    )
