"""Finding the size of a predictor that loses no more accuracy than it may."""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from nern.errors import TrainingDiverged
from nern.training.config import Config
from nern.training.loop import OnProgress, Progress, Snapshot
from nern.training.trained import Search, Size, Trained

# Parameters over represented weights; seven sizes are searched with three trainings.
RATIOS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.9)
TRAININGS = 3

Attempt = Callable[[Config, OnProgress, Snapshot | None], Trained]


def search(attempt: Attempt, config: Config, on_progress: OnProgress, snapshot: Snapshot | None) -> tuple[Trained, Search]:
    """The smallest of the sizes that meets the target, supposing that larger ones lose less; if none does, the largest.

    Every attempt is a whole training. Snapshots carry what earlier attempts found. An attempt that diverges does not meet the
    target; raises TrainingDiverged if all do.
    """
    assert config.target is not None
    wanted = config.target.drop
    if snapshot and snapshot.get("drop") != wanted:
        raise ValueError("the snapshot is of another training")
    sizes = [Size(**size) for size in snapshot["sizes"]] if snapshot else []
    kept: Snapshot | None = snapshot["kept"] if snapshot else None
    inner: Snapshot | None = snapshot["attempt"] if snapshot else None
    low, high = _bounds(sizes, wanted)
    while low < high:
        ratio = RATIOS[(low + high) // 2]
        watch = _Watch(on_progress, config, sizes, kept, inner)
        started = time.monotonic()
        try:
            trained = attempt(_sized(config, ratio), watch, inner)
            size = Size(ratio, trained.representation.predictor.config.hidden, drop_of(trained), trained.seconds)
        except TrainingDiverged:
            if low + 1 == high and kept is None:
                raise
            size = Size(ratio, None, None, time.monotonic() - started)
        inner = None
        # Until one meets the target, each is larger than those before it.
        if size.drop is not None and (size.meets(wanted) or not any(earlier.meets(wanted) for earlier in sizes)):
            kept = watch.final
        sizes = [*sizes, size]
        low, high = _bounds(sizes, wanted)
    finished = [size.ratio for size in sizes if size.drop is not None]
    meeting = [size.ratio for size in sizes if size.meets(wanted)]
    chosen = attempt(_sized(config, min(meeting, default=max(finished))), lambda progress: None, kept)
    chosen = replace(chosen, steps=TRAININGS * chosen.steps, seconds=sum(size.seconds for size in sizes))
    return chosen, Search(wanted, bool(meeting), tuple(sizes))


class _Watch:
    """Reports one attempt as a part of the search, and remembers its end."""

    def __init__(
        self, on_progress: OnProgress, config: Config, sizes: list[Size], kept: Snapshot | None, start: Snapshot | None
    ) -> None:
        assert config.target is not None
        # An attempt that starts at its last step has no other end.
        self.final = start
        self._started = time.monotonic()
        self._on_progress = on_progress
        self._drop = config.target.drop
        self._comparisons = config.comparisons
        self._sizes = sizes
        self._kept = kept

    def __call__(self, progress: Progress) -> None:
        steps, before = progress.steps - self._comparisons, len(self._sizes)
        one = time.monotonic() - self._started + progress.seconds_left  # as long as this, others will take
        if progress.step == steps:
            self.final = copy.deepcopy(progress.snapshot())

        def snapshot() -> Snapshot:
            return {
                "drop": self._drop,
                "attempt": progress.snapshot(),
                "kept": self._kept,
                "sizes": [asdict(size) for size in self._sizes],
            }

        self._on_progress(
            replace(
                progress,
                step=before * steps + progress.step,
                steps=TRAININGS * steps + self._comparisons,
                seconds_left=progress.seconds_left + (TRAININGS - before - 1) * one,
                snapshot=snapshot,
            )
        )


def drop_of(trained: Trained) -> float:
    """Points of accuracy lost on the held-out images, at the best evaluation."""
    assert trained.best.comparison is not None
    return trained.best.comparison.drop


def _bounds(sizes: list[Size], drop: float) -> tuple[int, int]:
    """The sizes left: the smallest that meets the target is at `low` or after, and before or at `high`."""
    low, high = 0, len(RATIOS)
    for size in sizes:
        if size.meets(drop):
            high = RATIOS.index(size.ratio)
        else:
            low = RATIOS.index(size.ratio) + 1
    return low, high


def _sized(config: Config, ratio: float) -> Config:
    return config.model_copy(update={"ratio": ratio, "hidden": None, "target": None})
