"""The search for the smallest predictor that meets an accuracy target."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from nern.errors import OtherTraining, TrainingDiverged
from nern.plan import Plan, SearchPlan
from nern.planning import SEARCHED_RATIOS
from nern.training.progress import Meter, OnProgress, Progress, silently
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
            with _searching(state, before):
                trained = run(candidate, meter, _with_state(on_progress, state), inner)
            final = trained.snapshot
            before = replace(final, search=state)
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
    with _searching(state, before):
        trained = run(chosen, Meter(chosen), silently, state.best)
    return replace(
        trained,
        snapshot=replace(trained.snapshot, search=state),
        steps=TRIALS * trained.steps,
        seconds=sum(trial.seconds for trial in state.trials),
        search=SearchResult(plan.drop, bool(meeting), state.trials),
    )


@contextmanager
def _searching(state: SearchState, before: Snapshot | None) -> Iterator[None]:
    """Gives the snapshot of a trial that is interrupted the state of the search."""
    try:
        yield
    except Interrupted as interruption:
        snapshot = interruption.snapshot
        interruption.snapshot = before if snapshot is None else replace(snapshot, search=state)
        raise


def _with_state(on_progress: OnProgress, state: SearchState) -> OnProgress:
    """An `on_progress` for one trial, which adds the state of the search to the snapshots."""

    def with_state(progress: Progress) -> None:
        on_progress(replace(progress, snapshot=lambda: replace(progress.snapshot(), search=state)))

    return with_state


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
