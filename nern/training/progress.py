"""How far a training is, and how long it will take."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

from nern.plan import Plan
from nern.request.phases import PhaseName, PhasePlan
from nern.training.selection import Evaluation
from nern.training.snapshot import Snapshot


def _no_snapshot() -> Snapshot:
    raise ValueError("there is no snapshot of what comes after the last step")


@dataclass(frozen=True)
class Progress:
    """A training after `step` of `steps`, which count over all phases, all trials and all pruned networks.

    `evaluation` is there if the network was evaluated after this step. `snapshot` may be called before the next step.
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
    """Reports nothing."""


class Meter:
    """Turns the steps of one trial, which may be the only one, into progress.

    The time left is estimated from the steps that were made: all steps left keep the pace of the current phase, and a later
    trial takes as long as this one.
    """

    def __init__(self, plan: Plan, *, trials: int = 1, trials_before: int = 0, steps_before: int = 0) -> None:
        """`steps_before` are the steps of this trial that another process has made."""
        self._plan = plan
        self._trials = trials
        self._trials_before = trials_before
        self._step = steps_before
        self._started = self._phase_started = monotonic()
        self._phase_steps = 0

    def begin(self) -> None:
        """A phase begins, or goes on."""
        self._phase_started, self._phase_steps = monotonic(), 0

    def step(
        self,
        phase: PhasePlan,
        losses: Mapping[str, float],
        evaluation: Evaluation | None,
        snapshot: Callable[[], Snapshot],
    ) -> Progress:
        """One more step of a phase has been made."""
        self._step += 1
        self._phase_steps += 1
        now = monotonic()
        pace = (now - self._phase_started) / self._phase_steps
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
    """Progress after the last of `steps`, when some pruned networks have been evaluated in so many seconds."""
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
