"""The training of one predictor."""

import copy
import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from nern import architectures, tensorfile
from nern.chance import generator
from nern.checks import Check, nothing
from nern.errors import NotRepresentable, UnusableImages
from nern.evaluation import BATCH, MAX_HELD_OUT, HeldOut, Judge
from nern.images import CPU, Images, ImageSource, Noise
from nern.layers import Layer, find_layers, find_linear, select_layers
from nern.permutation import permutations
from nern.rendering import narrowed
from nern.representation import Representation
from nern.synthesis import Synthesised
from nern.training import budget
from nern.training.config import Config, DecoupledConfig, RegularisedConfig
from nern.training.loop import OnProgress, Progress, Snapshot, run
from nern.training.recipes import Optimizers, Phase, Teaching, phases
from nern.training.selection import Evaluation, Selection
from nern.training.targets import Targets, relative_error
from nern.training.trained import Trained


def silently(progress: Progress) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Subject:
    """What a training is about: the weights to represent, and who teaches and judges, if anybody does."""

    state_dict: Mapping[str, Tensor]
    architecture: str | None
    data: Images | Noise | None
    layers: Sequence[Layer]
    teaching: Teaching | None
    judge: Judge | None
    device: torch.device

    @cached_property
    def digest(self) -> bytes:
        """Of the network and the data; computed once, however many trainings a search takes."""
        hash = hashlib.blake2b(f"{self.architecture}".encode(), digest_size=16)
        for name, tensor in self.state_dict.items():
            hash.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            hash.update(tensorfile.to_bytes(tensor))
        if isinstance(self.data, Images):
            hash.update(f"{self.data.pixels_NHWC.shape} {self.data.mean} {self.data.std}".encode())
            hash.update(self.data.pixels_NHWC.contiguous().numpy().data)
            hash.update(b"" if self.data.labels_N is None else tensorfile.to_bytes(self.data.labels_N))
        else:
            hash.update(f"{self.data}".encode())
        return hash.digest()


def train(
    state_dict: Mapping[str, Tensor],
    config: Config,
    *,
    architecture: str | None = None,
    data: Images | Noise | None = None,
    device: torch.device = CPU,
    on_progress: OnProgress = silently,
    check: Check = nothing,
    snapshot: Snapshot | None = None,
) -> Trained:
    """Trains a predictor for the convolutions of `state_dict`, or goes on from a snapshot of such a training.

    Without an architecture or without data there is no distillation. `on_progress` is called after every step, `check` now
    and then before the first one and while networks are compared; whatever they raise ends the training. Raises
    NotRepresentable, UnknownArchitecture, UnusableImages, TrainingDiverged, and ValueError for a snapshot of another training.
    """
    layers = choose_layers(state_dict, config, architecture)
    for name, tensor in state_dict.items():
        if tensor.dtype not in tensorfile.NAMES:
            raise NotRepresentable(f"{name!r} is of {tensor.dtype}, which can't be stored")
        if tensor.device != CPU or tensor.layout != torch.strided:
            raise NotRepresentable(f"{name!r} is not a dense tensor on the CPU")
    for layer in layers:
        if not state_dict[layer.name].float().isfinite().all():
            raise NotRepresentable(f"{layer.name!r} has weights that are not finite, or too large for float32")
    if architecture is not None:
        architectures.match(architecture, architectures.shapes_of(state_dict))
    teaching, judge = None, None
    if architecture is not None and data is not None:
        network = architectures.build(architecture, state_dict).to(device)
        images, held_out = hold_out(data, config, network)
        judge = Judge(network, held_out, check)
        teaching = Teaching(network, images)
    subject = Subject(state_dict, architecture, data, layers, teaching, judge, device)
    if isinstance(config, RegularisedConfig) and teaching is None:
        raise UnusableImages("the regularised recipe needs a known architecture and images to fine-tune on")
    if config.target is None:
        return fit(subject, config, on_progress, check, snapshot)
    if judge is None or judge.held_out.labels is None:
        raise UnusableImages("an accuracy target needs a known architecture and images with labels")

    def attempt(config: Config, on_progress: OnProgress, snapshot: Snapshot | None) -> Trained:
        return fit(subject, config, on_progress, check, snapshot)

    trained, search = budget.search(attempt, config, on_progress, snapshot)
    return replace(trained, search=search)


def fit(subject: Subject, config: Config, on_progress: OnProgress, check: Check, snapshot: Snapshot | None) -> Trained:
    """One training of one size; see `train`."""
    started = time.monotonic()
    teaching = subject.teaching
    config = config.resolve(subject.layers, distil=teaching is not None, architecture=subject.architecture)
    if snapshot and snapshot.get("training") != _identity(subject, config):
        raise ValueError("the snapshot is of another training")
    representation = _fresh(subject, config, snapshot, check).to(subject.device)
    targets = Targets(representation, subject.state_dict, subject.device)
    selection = Selection(representation.predictor)
    plan = phases(config, targets, teaching)
    done, seconds_before = 0, 0.0
    optimizers: Optimizers = ()
    if snapshot:
        done, seconds_before = snapshot["step"], snapshot["seconds"]
        selection.load_state_dict(snapshot["selection"])
        if teaching and isinstance(teaching.images, Synthesised):
            teaching.images.load_state_dict(snapshot["images"])
        optimizers = _phase_of(plan, done).begin()
        targets.load_state_dict(snapshot["targets"])
        for optimizer, state in zip(optimizers, snapshot["optimizers"], strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))  # it would keep the snapshot's own tensors
        representation.predictor.load_state_dict(snapshot["predictor"])

    def seconds() -> float:
        return seconds_before + time.monotonic() - started

    def take(optimizers: Optimizers, step: int) -> Snapshot:
        return {
            "training": _identity(subject, config),
            "step": step,
            "seconds": seconds(),
            "positions": [representation.positions(number) for number in range(len(subject.layers))],
            "targets": targets.state_dict(),
            "predictor": representation.predictor.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "selection": selection.state_dict(),
            "images": teaching.images.state_dict() if teaching and isinstance(teaching.images, Synthesised) else None,
        }

    halved = isinstance(config, DecoupledConfig) and config.bits <= 16

    def look(step: int) -> Evaluation:
        with representation.predictor.halved() if halved else nullcontext():
            return selection.add(evaluate(targets, subject.judge, step))

    check()
    for progress in run(plan, targets, look, take, done, optimizers):
        on_progress(replace(progress, steps=progress.steps + config.comparisons))
    best, last = selection.finish()
    steps = sum(phase.steps for phase in plan)
    return Trained(representation.to(CPU), config, steps, best, last, subject.judge, seconds())


def choose_layers(state_dict: Mapping[str, Tensor], config: Config, architecture: str | None) -> list[Layer]:
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


def evaluate(targets: Targets, judge: Judge | None, step: int) -> Evaluation:
    """Renders the whole network, as it will be in the dtypes that it had, and compares."""
    layers = targets.representation.layers
    pairs = zip(targets.representation.render_all(), layers, strict=True)
    rendered = [narrowed(weight, layer.dtype).float() for weight, layer in pairs]
    names = [layer.name for layer in layers]
    comparison = judge.compare(dict(zip(names, rendered, strict=True))) if judge else None
    return Evaluation(step, relative_error(rendered, targets.original), comparison, targets.representation.predictor.rounded)


def hold_out(data: Images | Noise, config: Config, network: nn.Module) -> tuple[ImageSource, HeldOut]:
    """Inputs to distil from, and others to judge by."""
    chance = generator(config.seed, "held out")
    if isinstance(data, Images):
        if len(data) < 2:
            raise UnusableImages(f"the dataset has {len(data)} images; at least 2 are needed")
        count = min(MAX_HELD_OUT, max(1, round(config.held_out * len(data))))
        images, held_out = data.split(count, chance, augment=config.augment)
        return images, HeldOut.of(held_out)
    if data.kind == "matched":
        pool = Synthesised(data.shape, config.synthesised_images, network, chance, augment=config.augment)
        return pool, HeldOut(pool.held_out)
    noise = data.batch(BATCH, chance)
    return data, HeldOut(lambda: (noise,))


def _identity(subject: Subject, config: Config) -> str:
    """What tells trainings apart: what they were asked for, the network, and the images."""
    return hashlib.blake2b(config.model_dump_json().encode() + subject.digest, digest_size=16).hexdigest()


def _fresh(subject: Subject, config: Config, snapshot: Snapshot | None, check: Check) -> Representation:
    """A representation before its first step; the permutation is what takes long, so a snapshot has it."""
    tiles, state_dict = config.tiles(subject.layers), subject.state_dict
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
