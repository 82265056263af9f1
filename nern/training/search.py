"""The search for the smallest predictor that meets an accuracy target."""

import time
from collections.abc import Callable
from dataclasses import replace

from nern.errors import OtherTraining, TrainingDiverged
from nern.plan import Plan, SearchPlan
from nern.planning import SEARCHED_RATIOS
from nern.training.progress import Meter, OnProgress, Progress, silently
from nern.training.snapshot import SearchState, Snapshot
from nern.training.trained import SearchResult, Trained, Trial

# The trials of a binary search among the sizes.
TRIALS = len(SEARCHED_RATIOS).bit_length()

RunTrial = Callable[[Plan, Meter, OnProgress, Snapshot | None], Trained]


def search(plan: SearchPlan, run: RunTrial, on_progress: OnProgress, snapshot: Snapshot | None) -> Trained:
    """The training of the smallest size that meets the target. If no size meets it, of the largest that was tried.

    The search is a binary search. It assumes that a larger predictor loses less accuracy. Every trial is a whole training. A
    trial that diverges does not meet the target. Each snapshot has the results of the earlier trials. Raises TrainingDiverged
    if all trials diverge, and OtherTraining for a snapshot of another search.
    """
    state, inner = _state_of(snapshot, plan.drop)
    low, high = _bounds(plan, state)
    while low < high:
        ratio, candidate = plan.candidates[(low + high) // 2]
        watch = _Watch(candidate, on_progress, state, inner)
        started = time.monotonic()
        try:
            meter = Meter(candidate, trials=TRIALS, trials_before=len(state.trials), steps_before=inner.step if inner else 0)
            trained = run(candidate, meter, watch, inner)
            trial = Trial(ratio, candidate.predictor.hidden, drop_of(trained), trained.seconds)
        except TrainingDiverged:
            if low + 1 == high and state.best is None:
                raise
            trial = Trial(ratio, None, None, time.monotonic() - started)
        inner = None
        # Until a size meets the target, every trial is larger than the trials before it, and the largest one is kept.
        better = trial.drop is not None and (trial.meets(plan.drop) or not _any_meets(state))
        state = SearchState(plan.drop, (*state.trials, trial), watch.final if better else state.best)
        low, high = _bounds(plan, state)
    finished = [trial.ratio for trial in state.trials if trial.drop is not None]
    meeting = [trial.ratio for trial in state.trials if trial.meets(plan.drop)]
    chosen = dict(plan.candidates)[min(meeting, default=max(finished))]
    trained = run(chosen, Meter(chosen), silently, state.best)
    return replace(
        trained,
        steps=TRIALS * trained.steps,
        seconds=sum(trial.seconds for trial in state.trials),
        search=SearchResult(plan.drop, bool(meeting), state.trials),
    )


class _Watch:
    """An `on_progress` for one trial. It adds the state of the search to the snapshots.

    `final` is the snapshot after the last step of the trial, or None before.
    """

    def __init__(self, plan: Plan, on_progress: OnProgress, state: SearchState, start: Snapshot | None) -> None:
        # A trial that begins at a snapshot after its last step makes no step. That snapshot is then its end.
        self.final = start
        self._last_step = len(state.trials) * plan.steps + plan.steps
        self._on_progress = on_progress
        self._state = state

    def __call__(self, progress: Progress) -> None:
        if progress.step == self._last_step:
            self.final = progress.snapshot().detached()
        self._on_progress(replace(progress, snapshot=lambda: replace(progress.snapshot(), search=self._state)))


def drop_of(trained: Trained) -> float:
    """The percentage points of accuracy that the best evaluation lost on the held-out set."""
    assert trained.best.comparison is not None
    return trained.best.comparison.drop


def _state_of(snapshot: Snapshot | None, drop: float) -> tuple[SearchState, Snapshot | None]:
    """The state of the search in a snapshot, and the snapshot of the current trial."""
    if snapshot is None:
        return SearchState(drop, (), None), None
    if snapshot.search is None or snapshot.search.drop != drop:
        raise OtherTraining("the snapshot is of another training: it is not of a search for this accuracy target")
    return snapshot.search, replace(snapshot, search=None)


def _bounds(plan: SearchPlan, state: SearchState) -> tuple[int, int]:
    """The numbers (low, high) of the candidates that are left.

    The smallest size that meets the target is `low` at the least and `high` at the most. `high` is the number of candidates
    while no trial has met the target.
    """
    ratios = [ratio for ratio, _ in plan.candidates]
    low, high = 0, len(ratios)
    for trial in state.trials:
        if trial.meets(plan.drop):
            high = ratios.index(trial.ratio)
        else:
            low = ratios.index(trial.ratio) + 1
    return low, high


def _any_meets(state: SearchState) -> bool:
    return any(trial.meets(state.drop) for trial in state.trials)
