"""The training of one predictor."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor

from nern import architectures
from nern.errors import TrainingDiverged, UnusableImages
from nern.evaluation import MAX_HELD_OUT, Comparison, HeldOut, Judge
from nern.images import Images, ImageSource, Noise
from nern.layers import Layer, find_layers, select_layers
from nern.permutation import Check
from nern.representation import Representation
from nern.training.config import DecoupledConfig, PaperConfig
from nern.training.gradients import render_all
from nern.training.recipes import RELATIVE_RATE, Phase, PhaseName, Teaching, phases
from nern.training.targets import Targets

# Steps between evaluations, at least: with few steps they would take longer than the training.
MIN_INTERVAL = 25

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Evaluation:
    """How good the representation is after `step` steps.

    `relative_error` is the norm of the error over the norm of the weights; `comparison` is None without distillation.
    """

    step: int
    relative_error: float
    comparison: Comparison | None

    @property
    def rank(self) -> float:
        """What model selection minimises: the divergence from the original, or else the error of the weights."""
        value = self.comparison.divergence if self.comparison else self.relative_error
        return value if isfinite(value) else inf


@dataclass(frozen=True)
class Progress:
    """Where a training stands. `step` counts over all phases; `evaluation` is there when it has just been made."""

    phase: PhaseName
    step: int
    steps: int
    losses: Mapping[str, float]
    evaluation: Evaluation | None
    steps_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Trained:
    """The representation as it was at the best evaluation, and what it was judged by."""

    representation: Representation
    config: DecoupledConfig | PaperConfig
    best: Evaluation
    last: Evaluation
    judge: Judge | None
    seconds: float


def choose_layers(
    state_dict: Mapping[str, Tensor], config: DecoupledConfig | PaperConfig, architecture: str | None
) -> list[Layer]:
    """The convolutions that the configuration asks for. Raises NotRepresentable."""
    layers = find_layers(state_dict)
    if config.layers == "all":
        return select_layers(layers, None)
    if config.layers == "paper":
        return select_layers(layers, architectures.paper_layers(architecture, {layer.name: layer.shape for layer in layers}))
    return select_layers(layers, config.layers)


def train(
    state_dict: Mapping[str, Tensor],
    config: DecoupledConfig | PaperConfig,
    *,
    architecture: str | None = None,
    data: Images | Noise | None = None,
    device: torch.device = CPU,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    check: Check = lambda: None,
) -> Trained:
    """Trains a predictor for the convolutions of `state_dict`.

    Without an architecture or without data there is no distillation. `on_progress` is called after every step, `check`
    now and then before the first one; whatever they raise ends the training. Raises NotRepresentable,
    UnknownArchitecture, UnusableImages, TrainingDiverged.
    """
    started = time.monotonic()
    generator = torch.Generator().manual_seed(config.seed)
    layers = choose_layers(state_dict, config, architecture)
    teaching, judge = None, None
    if architecture and data:
        network = architectures.build(architecture, state_dict).to(device)
        images, held_out = hold_out(data, config, generator)
        judge = Judge(network, held_out)
        teaching = Teaching(network, images)
    config = config.resolve(layers, distil=teaching is not None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        representation = Representation.untrained(
            layers,
            state_dict,
            config.predictor(layers),
            permutation=config.permutation,
            scaled=isinstance(config, DecoupledConfig),
            check=check,
        ).to(device)
    targets = Targets(representation, state_dict, device)

    best: Evaluation | None = None
    last: Evaluation | None = None
    check()
    for progress in run(list(phases(config, targets, teaching, generator)), lambda step: evaluate(targets, judge, step)):
        last = progress.evaluation or last
        if progress.evaluation and (best is None or progress.evaluation.rank < best.rank):
            best, best_weights = progress.evaluation, copy.deepcopy(representation.predictor.state_dict())
        on_progress(progress)
    assert best is not None, "the last step is always evaluated"
    assert last is not None
    if best.rank == inf:
        raise TrainingDiverged("no evaluation of the rebuilt network gave finite numbers")
    representation.predictor.load_state_dict(best_weights)
    return Trained(representation.to(CPU), config, best, last, judge, time.monotonic() - started)


def run(plan: Sequence[Phase], evaluate: Callable[[int], Evaluation]) -> Iterator[Progress]:
    """Runs phase after phase, step after step. Raises TrainingDiverged at the first loss that is not finite."""
    steps = sum(phase.steps for phase in plan)
    pace = [_seconds(phase) for phase in plan]
    step = 0
    for number, phase in enumerate(plan):
        started = time.monotonic()
        groups = [group for optimizer in phase.optimizers for group in optimizer.param_groups]
        interval = max(MIN_INTERVAL, -(-phase.steps // phase.evaluations))
        for done in range(1, phase.steps + 1):
            step += 1
            rate = phase.learning_rate(done - 1)
            for group in groups:
                group["lr"] = rate * group.get(RELATIVE_RATE, 1.0)
            for optimizer in phase.optimizers:
                optimizer.zero_grad()
            values = phase.gradients()
            for name, value in values.items():
                if not isfinite(value):
                    raise TrainingDiverged(f"the {name} loss became {value} at step {step} of {steps}")
            for optimizer in phase.optimizers:
                optimizer.step()
            evaluation = evaluate(step) if done % interval == 0 or done == phase.steps else None
            pace[number] = (time.monotonic() - started) / done
            left = pace[number] * (phase.steps - done)
            left += sum(seconds * later.steps for seconds, later in zip(pace[number + 1 :], plan[number + 1 :], strict=True))
            yield Progress(phase.name, step, steps, values, evaluation, 1 / pace[number], left)


def evaluate(targets: Targets, judge: Judge | None, step: int) -> Evaluation:
    """Renders the whole network and compares."""
    rendered = render_all(targets.representation)
    error = sum((ours - theirs).square().sum().item() for ours, theirs in zip(rendered, targets.weights, strict=True))
    norm = sum(weight.square().sum().item() for weight in targets.weights)
    names = [layer.name for layer in targets.representation.layers]
    comparison = judge.compare(dict(zip(names, rendered, strict=True))) if judge else None
    return Evaluation(step, (error / norm) ** 0.5 if norm else 0.0, comparison)


def hold_out(
    data: Images | Noise, config: DecoupledConfig | PaperConfig, generator: torch.Generator
) -> tuple[ImageSource, HeldOut]:
    """Splits a dataset into images to distil from and images to judge by."""
    if isinstance(data, Noise):
        return data, HeldOut(data, generator)
    if len(data) < 2:
        raise UnusableImages(f"the dataset has {len(data)} images; at least 2 are needed")
    count = min(MAX_HELD_OUT, max(1, round(config.held_out * len(data))))
    images, held_out = data.split(count, generator)
    return images, HeldOut(held_out, generator)


def _seconds(phase: Phase) -> float:
    """A first estimate of how long a step of the phase takes; the gradients are thrown away."""
    started = time.monotonic()
    phase.gradients()
    return time.monotonic() - started
