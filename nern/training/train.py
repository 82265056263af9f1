"""The training of one predictor."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from nern import architectures
from nern.chance import generator
from nern.errors import NotRepresentable, TrainingDiverged, UnusableImages
from nern.evaluation import BATCH, MAX_HELD_OUT, HeldOut, Judge
from nern.images import Images, ImageSource, Noise
from nern.layers import Layer, find_layers, find_linear, select_layers
from nern.paths import Check, nothing
from nern.permutation import permutations
from nern.representation import Representation
from nern.synthesis import Synthesised
from nern.training.config import DecoupledConfig, PaperConfig
from nern.training.gradients import render_all
from nern.training.recipes import RELATIVE_RATE, Optimizers, Phase, PhaseName, Teaching, phases
from nern.training.selection import Evaluation, Selection
from nern.training.targets import Targets

# Steps between evaluations, at least: with few steps they would take longer than the training.
MIN_INTERVAL = 25

CPU = torch.device("cpu")

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


@dataclass(frozen=True)
class Trained:
    """The representation as it was at the best evaluation of all `steps`, and what it was judged by."""

    representation: Representation
    config: DecoupledConfig | PaperConfig
    steps: int
    best: Evaluation
    last: Evaluation
    judge: Judge | None
    seconds: float


def choose_layers(
    state_dict: Mapping[str, Tensor], config: DecoupledConfig | PaperConfig, architecture: str | None
) -> list[Layer]:
    """The weights that the configuration asks for. Raises NotRepresentable."""
    convolutions = find_layers(state_dict)
    if isinstance(config.layers, list):
        known = {layer.name: layer for layer in convolutions + find_linear(state_dict)}
        return select_layers([known[name] for name in state_dict if name in known], config.layers)
    if not convolutions:
        raise NotRepresentable("the network has no convolution to represent")
    if config.layers == "all":
        return convolutions
    shapes = {layer.name: layer.shape for layer in convolutions}
    return select_layers(convolutions, architectures.paper_layers(architecture, shapes))


def train(
    state_dict: Mapping[str, Tensor],
    config: DecoupledConfig | PaperConfig,
    *,
    architecture: str | None = None,
    data: Images | Noise | None = None,
    device: torch.device = CPU,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    check: Check = nothing,
    snapshot: Snapshot | None = None,
) -> Trained:
    """Trains a predictor for the convolutions of `state_dict`, or goes on from a snapshot of such a training.

    Without an architecture or without data there is no distillation. `on_progress` is called after every step, `check`
    now and then before the first one; whatever they raise ends the training. Raises NotRepresentable,
    UnknownArchitecture, UnusableImages, TrainingDiverged, and ValueError for a snapshot of another training.
    """
    started = time.monotonic()
    layers = choose_layers(state_dict, config, architecture)
    teaching, judge = None, None
    if architecture and data:
        network = architectures.build(architecture, state_dict).to(device)
        images, held_out = hold_out(data, config, network)
        judge = Judge(network, held_out)
        teaching = Teaching(network, images)
    config = config.resolve(layers, distil=teaching is not None)
    representation = _fresh(layers, state_dict, config, snapshot, check).to(device)
    targets = Targets(representation, state_dict, device)
    selection = Selection(representation.predictor)
    plan = phases(config, targets, teaching)
    done, seconds_before = 0, 0.0
    optimizers: Optimizers = ()
    if snapshot:
        if snapshot["config"] != config.model_dump(mode="json"):
            raise ValueError("the snapshot is of another training")
        done, seconds_before = snapshot["step"], snapshot["seconds"]
        selection.load_state_dict(snapshot["selection"])
        if teaching and isinstance(teaching.images, Synthesised):
            teaching.images.load_state_dict(snapshot["images"])
        optimizers = _phase_of(plan, done).begin()
        for optimizer, state in zip(optimizers, snapshot["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        representation.predictor.load_state_dict(snapshot["predictor"])

    def seconds() -> float:
        return seconds_before + time.monotonic() - started

    def take(optimizers: Optimizers, step: int) -> Snapshot:
        return {
            "config": config.model_dump(mode="json"),
            "step": step,
            "seconds": seconds(),
            "positions": [representation.positions(number) for number in range(len(layers))],
            "predictor": representation.predictor.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "selection": selection.state_dict(),
            "images": teaching.images.state_dict() if teaching and isinstance(teaching.images, Synthesised) else None,
        }

    check()
    for progress in run(plan, targets, lambda step: selection.add(evaluate(targets, judge, step)), take, done, optimizers):
        on_progress(replace(progress, steps=progress.steps + config.comparisons))
    best, last = selection.finish()
    steps = sum(phase.steps for phase in plan)
    return Trained(representation.to(CPU), config, steps, best, last, judge, seconds())


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
                    raise TrainingDiverged(f"the {name} loss became {value} at step {step} of {steps}; {suspect(targets)}")
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


def evaluate(targets: Targets, judge: Judge | None, step: int) -> Evaluation:
    """Renders the whole network and compares."""
    rendered = render_all(targets.representation)
    error = sum((ours - theirs).square().sum().item() for ours, theirs in zip(rendered, targets.weights, strict=True))
    norm = sum(weight.square().sum().item() for weight in targets.weights)
    names = [layer.name for layer in targets.representation.layers]
    comparison = judge.compare(dict(zip(names, rendered, strict=True))) if judge else None
    compressed = targets.representation.predictor.bits is not None
    return Evaluation(step, (error / norm) ** 0.5 if norm else 0.0, comparison, compressed)


def suspect(targets: Targets) -> str:
    """Which layer a loss that is not finite may come from."""
    errors = [
        (ours - theirs).norm().item() / max(theirs.norm().item(), 1e-30)
        for ours, theirs in zip(render_all(targets.representation), targets.weights, strict=True)
    ]
    names = [layer.name for layer in targets.representation.layers]
    for name, error in zip(names, errors, strict=True):
        if not isfinite(error):
            return f"the first layer whose rebuilt weights are not finite is {name!r}"
    worst = max(range(len(errors)), key=errors.__getitem__)
    return f"all rebuilt weights are finite; furthest off is {names[worst]!r}, by {errors[worst]:.3g} of its norm"


def hold_out(data: Images | Noise, config: DecoupledConfig | PaperConfig, network: nn.Module) -> tuple[ImageSource, HeldOut]:
    """Inputs to distil from, and others to judge by."""
    chance = generator(config.seed, "held out")
    if isinstance(data, Images):
        if len(data) < 2:
            raise UnusableImages(f"the dataset has {len(data)} images; at least 2 are needed")
        images, held_out = data.split(min(MAX_HELD_OUT, max(1, round(config.held_out * len(data)))), chance)
        return images, HeldOut.of(held_out)
    if data.kind == "matched":
        pool = Synthesised(data.shape, config.synthesised_images, network, chance)
        return pool, HeldOut(pool.held_out)
    noise = data.batch(BATCH, chance)
    return data, HeldOut(lambda: (noise,))


def _fresh(
    layers: Sequence[Layer],
    state_dict: Mapping[str, Tensor],
    config: DecoupledConfig | PaperConfig,
    snapshot: Snapshot | None,
    check: Check,
) -> Representation:
    """A representation before its first step; the permutation is what takes long, so a snapshot has it."""
    tiles = config.tiles(layers)
    positions = snapshot["positions"] if snapshot else permutations(tiles, state_dict, config.permutation, config.path, check)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Representation.untrained(
            tiles,
            state_dict,
            config.predictor,
            permutation=config.permutation,
            positions=positions,
            layer_scaling=config.layer_scaling,
        )


def _phase_of(plan: Sequence[Phase], step: int) -> Phase:
    """The phase that a step, counted from 1 over all phases, belongs to."""
    for phase in plan:
        if step <= phase.steps:
            return phase
        step -= phase.steps
    raise ValueError("the snapshot has more steps than the training")


def _seconds(phase: Phase) -> float:
    """A first estimate of how long a step of the phase takes; the gradients are thrown away."""
    started = time.monotonic()
    phase.gradients(0)
    return time.monotonic() - started
