"""The training loop: phases in, steps out."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from nern.errors import TrainingDiverged
from nern.training.recipes import RELATIVE_RATE, Optimizers, Phase, PhaseName
from nern.training.selection import Evaluation
from nern.training.targets import Targets

# Steps between evaluations, at least: with few steps they would take longer than the training.
MIN_INTERVAL = 25

Snapshot = dict[str, Any]
"""All that a training needs to go on from a step, bit for bit; torch.save can write it."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands. `step` counts over all phases; `evaluation` is there when it has just been made.

    `snapshot` is to be called, if at all, before the next step; its tensors are the training's own.
    """

    phase: PhaseName
    step: int
    steps: int
    losses: Mapping[str, float]
    evaluation: Evaluation | None
    steps_per_second: float
    seconds_left: float
    snapshot: Callable[[], Snapshot] = dict


OnProgress = Callable[[Progress], None]


def run(
    plan: Sequence[Phase],
    targets: Targets,
    evaluate: Callable[[int], Evaluation],
    take: Callable[[Optimizers, int], Snapshot],
    done: int = 0,
    optimizers: Optimizers = (),
) -> Iterator[Progress]:
    """Runs phase after phase, step after step, but for the first `done` steps; `optimizers` are those of the last of them.

    Raises TrainingDiverged at the first loss that is not finite.
    """
    steps = sum(phase.steps for phase in plan)
    pace = [_seconds(phase) for phase in plan]
    before = 0
    for number, phase in enumerate(plan):
        started = time.monotonic()
        first = max(0, done - before)
        if first == 0:
            optimizers = phase.begin()
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        interval = max(MIN_INTERVAL, -(-phase.steps // max(1, phase.evaluations)))
        for behind in range(first, phase.steps):
            step = before + behind + 1
            rate = phase.learning_rate(behind)
            for group in groups:
                group["lr"] = rate * group.get(RELATIVE_RATE, 1.0)
            for optimizer in optimizers:
                optimizer.zero_grad()
            values = phase.gradients(behind)
            for name, value in values.items():
                if not isfinite(value):
                    cause = suspect(targets) if phase.name != "synthesis" else "images that are being made diverged"
                    raise TrainingDiverged(f"the {name} loss became {value} at step {step} of {steps}; {cause}")
            for optimizer in optimizers:
                optimizer.step()
            due = (behind + 1) % interval == 0 or behind + 1 == phase.steps
            evaluation = evaluate(step) if due and phase.evaluations else None
            pace[number] = (time.monotonic() - started) / (behind + 1 - first)
            left = pace[number] * (phase.steps - behind - 1)
            left += sum(seconds * later.steps for seconds, later in zip(pace[number + 1 :], plan[number + 1 :], strict=True))

            def snapshot(optimizers: Optimizers = optimizers, step: int = step) -> Snapshot:
                return take(optimizers, step)

            yield Progress(phase.name, step, steps, values, evaluation, 1 / pace[number], left, snapshot)
        before += phase.steps


def suspect(targets: Targets) -> str:
    """Which layer a loss that is not finite may come from."""
    for layer, weight in targets.named().items():
        if not weight.isfinite().all():
            return f"the first layer whose smoothed weights are not finite is {layer!r}"
    errors = [
        (ours - theirs).norm().item() / max(theirs.norm().item(), 1e-30)
        for ours, theirs in zip(targets.representation.render_all(), targets.weights, strict=True)
    ]
    names = [layer.name for layer in targets.representation.layers]
    for name, error in zip(names, errors, strict=True):
        if not isfinite(error):
            return f"the first layer whose rebuilt weights are not finite is {name!r}"
    worst = max(range(len(errors)), key=errors.__getitem__)
    return f"all rebuilt weights are finite; furthest off is {names[worst]!r}, by {errors[worst]:.3g} of its norm"


def _seconds(phase: Phase) -> float:
    """A first estimate of how long a step of the phase takes; the gradients are thrown away."""
    started = time.monotonic()
    phase.gradients(0)
    return time.monotonic() - started
