"""The search for the smallest predictor that meets an accuracy target."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from nern.errors import OtherTraining, TrainingDiverged
from nern.plan import Plan, SearchPlan
from nern.planning import SEARCHED_RATIOS
from nern.training.progress import Meter, OnProgress, silently
from nern.training.snapshot import Interrupted, SearchState, Snapshot
from nern.training.trained import SearchResult, Trained
from nern.training.trial import Trial

# The trials of a binary search among the sizes.
TRIALS = len(SEARCHED_RATIOS).bit_length()

RunTrial = Callable[[Plan, Meter, OnProgress, Snapshot | None], Trained]


def search(plan: SearchPlan, run: RunTrial, on_progress: OnProgress, snapshot: Snapshot | None) -> Trained:
    """The training of the smallest size that meets the target. If no size meets it, of the largest that was tried.

    The search is a binary search. It assumes that a larger predictor loses less accuracy. Every trial is a whole training. A
    trial that diverges does not meet the target. Each snapshot has the results of the earlier trials. Raises TrainingDiverged
    if all trials diverge, OtherTraining for a snapshot of another search, and Interrupted.
    """
    state, inner = _state_of(snapshot, plan.drop)
    # A snapshot from which a trial goes on that is interrupted before its first step.
    before = snapshot
    low, high = _bounds(plan, state)
    while low < high:
        ratio, candidate = plan.candidates[(low + high) // 2]
        final: Snapshot | None = None
        started = time.monotonic()
        try:
            meter = Meter(candidate, trials=TRIALS, trials_before=len(state.trials), steps_before=inner.step if inner else 0)
            within = _Within(state, candidate.steps)
            with within.completed(before):
                trained = run(candidate, meter, within.reporting_to(on_progress), inner)
            final = trained.snapshot
            before = within.search(final)
            trial = Trial(ratio, candidate.predictor.hidden, drop_of(trained), trained.seconds)
        except TrainingDiverged:
            if low + 1 == high and state.best is None:
                raise
            trial = Trial(ratio, None, None, time.monotonic() - started)
        inner = None
        # Until a size meets the target, every trial is larger than the trials before it, and the largest one is kept.
        better = trial.drop is not None and (trial.meets(plan.drop) or not _any_meets(state))
        state = SearchState(plan.drop, (*state.trials, trial), final if better else state.best)
        low, high = _bounds(plan, state)
    finished = [trial.ratio for trial in state.trials if trial.drop is not None]
    meeting = [trial.ratio for trial in state.trials if trial.meets(plan.drop)]
    chosen = dict(plan.candidates)[min(meeting, default=max(finished))]
    assert state.best is not None
    steps = TRIALS * chosen.steps
    end = replace(state.best, search=state, steps=steps)
    try:
        trained = run(chosen, Meter(chosen), silently, state.best)
    except Interrupted as interruption:
        interruption.snapshot = end
        raise
    return replace(
        trained,
        snapshot=end,
        steps=steps,
        seconds=sum(trial.seconds for trial in state.trials),
        search=SearchResult(plan.drop, bool(meeting), state.trials),
    )


@dataclass(frozen=True)
class _Within:
    """Makes snapshots of the search out of the snapshots of one trial: adds the state of the search before the trial.

    steps: the number of steps of each trial.
    """

    state: SearchState
    steps: int

    def search(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot of the search."""
        return replace(snapshot, search=self.state, steps=len(self.state.trials) * self.steps + snapshot.step)

    @contextmanager
    def completed(self, before: Snapshot | None) -> Iterator[None]:
        """Completes the snapshot of a trial that is interrupted. If the trial has made no step, it is `before`."""
        try:
            yield
        except Interrupted as interruption:
            snapshot = interruption.snapshot
            interruption.snapshot = before if snapshot is None else self.search(snapshot)
            raise

    def reporting_to(self, on_progress: OnProgress) -> OnProgress:
        """An `on_progress` for the trial, which completes the snapshots."""
        return lambda progress: on_progress(replace(progress, snapshot=lambda: self.search(progress.snapshot())))


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
