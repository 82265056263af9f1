"""The recipes, as phases of one training loop."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

from nern.images import ImageSource
from nern.optim import Muon, Ranger
from nern.predictor import Predictor
from nern.randomness import generator
from nern.synthesis import ImagePool, follow_statistics
from nern.training import sampling
from nern.training.config import Config, DecoupledConfig, PaperConfig, RegularisedConfig
from nern.training.gradients import LossWeights, all_at_once, reconstruct, smooth
from nern.training.targets import Targets, relative_error

PhaseName = Literal["synthesis", "smoothing", "reconstruction", "distillation", "compression", "importance"]

# A parameter group's learning rate is the phase's times this entry of the group, or times 1.
RELATIVE_RATE = "relative_rate"

# Relative error of the weights below which a phase that goes on from there takes smaller steps.
ROUGH = 0.3

Gradients = Callable[[int], dict[str, float]]

Optimizers = tuple[torch.optim.Optimizer, ...]


@dataclass(frozen=True)
class Phase:
    """`begin` makes what the phase trains ready and returns the optimizers for it. `gradients` fills the gradients of one step
    and returns the losses; it and `learning_rate` are functions of the number of steps that the phase has behind it.

    `evaluations` says how often, over the phase, it is worth looking at the whole network.
    """

    name: PhaseName
    steps: int
    begin: Callable[[], Optimizers]
    learning_rate: Callable[[int], float]
    gradients: Gradients
    evaluations: int = 20


@dataclass(frozen=True)
class Teaching:
    """What distillation needs: the original network and a source of inputs."""

    network: nn.Module
    images: ImageSource

    def inputs(self, config: Config, stream: str, step: int) -> Tensor:
        """The inputs of one step of a stream of them, where the network is: (B, channels, height, width)."""
        device = next(self.network.parameters()).device
        return self.images.batch(config.image_batch, generator(config.seed, stream, step), device)


def phases(config: Config, targets: Targets, teaching: Teaching | None) -> list[Phase]:
    """The phases of a resolved configuration that have any steps."""
    recipe = paper(config, targets, teaching) if isinstance(config, PaperConfig) else decoupled(config, targets, teaching)
    if teaching and isinstance(teaching.images, ImagePool):
        recipe = chain([synthesis(config, teaching.network, teaching.images)], recipe)
    found = [phase for phase in recipe if phase.steps]
    assert all(phase.steps > 0 for phase in found), "a configuration is checked when it is made, not by model_copy"
    return found


def synthesis(config: Config, network: nn.Module, pool: ImagePool) -> Phase:
    """Makes the images, one group after the other."""
    steps = config.synthesis_steps
    schedule = cosine(config.synthesis_learning_rate, steps)
    # A group that has no gradient in a step is left alone.
    optimizer = torch.optim.Adam(pool.parameters())

    def follow(step: int) -> dict[str, float]:
        group = step // steps
        if group:
            # What Adam remembers of it is twice as large as the group, and of no more use.
            optimizer.state.pop(pool.groups[group - 1], None)
        return follow_statistics(network, pool, group, generator(config.seed, "synthesis", step))

    return Phase(
        "synthesis",
        steps * len(pool.groups),
        lambda: (optimizer,),
        lambda step: schedule(step % steps),
        follow,
        evaluations=0,
    )


def decoupled(config: DecoupledConfig, targets: Targets, teaching: Teaching | None) -> Iterator[Phase]:
    """Batches of tiles against the weights alone; then all tiles against the teacher alone, in small steps; then, if the
    predictor is to be compressed, both once more with quantised weights, which are fitted to the exact ones' predictions first.
    """
    assert config.reconstruction_steps is not None, "resolve() comes first"
    assert config.compression_steps is not None
    predictor = targets.representation.predictor
    batches = sampling.Shuffled(len(targets.representation.tiles), config.kernel_batch, config.seed)
    factors = LossWeights(logits=1.0, feature_maps=config.feature_map_weight)

    def follow_weights(step: int) -> dict[str, float]:
        return reconstruct(targets, batches.batch(step))

    def follow_teacher(step: int) -> dict[str, float]:
        assert teaching is not None
        return all_at_once(teaching.network, targets, teaching.inputs(config, "images", step), None, factors)

    def fresh() -> Optimizers:
        targets.settle()
        return muon(predictor)

    def share(goal: Sequence[Tensor]) -> float:
        """The better the fit, the smaller the steps that it bears; docs/method.md."""
        return min(1.0, relative_error(targets.representation.render_all(), goal) / ROUGH) ** 2

    def fitted() -> Optimizers:
        return (torch.optim.Adam([{"params": list(predictor.parameters()), RELATIVE_RATE: share(targets.weights)}]),)

    def quantised() -> Optimizers:
        exact = targets.representation.render_all()
        targets.follow(exact)
        predictor.quantise(config.bits, config.sparsity)
        return muon(predictor, share(exact))

    def centred() -> Optimizers:
        if not predictor.quantised:
            quantised()
        # Fitting leaves weights where rounding changes sides, and small steps would change many codes at once.
        predictor.centre()
        return fitted()

    if isinstance(config, RegularisedConfig) and teaching:
        yield smoothing(config, targets, teaching)
    steps = config.reconstruction_steps
    schedule = cosine(config.learning_rate, steps, warm_up=steps // 50)
    yield Phase("reconstruction", steps, fresh, schedule, follow_weights, evaluations=5)
    distilled = config.steps - steps - config.compression_steps if teaching else 0
    schedule = cosine(config.distillation_learning_rate, distilled, warm_up=distilled // 50)
    yield Phase("distillation", distilled, fitted, schedule, follow_teacher)
    fit = config.compression_steps // 2 if teaching else config.compression_steps
    schedule = cosine(config.learning_rate, fit, warm_up=fit // 50)
    yield Phase("compression", fit, quantised, schedule, lambda step: follow_weights(steps + step), evaluations=5)
    left = config.compression_steps - fit
    schedule = cosine(config.distillation_learning_rate, left, warm_up=left // 50)
    # It goes on with the images where distillation has ended.
    yield Phase("compression", left, centred, schedule, lambda step: follow_teacher(distilled + step))


def smoothing(config: RegularisedConfig, targets: Targets, teaching: Teaching) -> Phase:
    """Changes the weights so that neighbours become similar while the outputs stay what they were."""
    schedule = cosine(config.smoothing_learning_rate, config.smoothing_steps, warm_up=config.smoothing_steps // 50)

    def follow(step: int) -> dict[str, float]:
        return smooth(teaching.network, targets, teaching.inputs(config, "smoothing", step), config.smoothing_weight)

    return Phase(
        "smoothing",
        config.smoothing_steps,
        lambda: (torch.optim.Adam(targets.loosen()),),
        schedule,
        follow,
        evaluations=0,
    )


def paper(config: PaperConfig, targets: Targets, teaching: Teaching | None) -> Iterator[Phase]:
    """All losses at once, their gradient through a batch of tiles; one optimizer and schedule throughout."""
    assert config.reconstruction_steps is not None, "resolve() comes first"
    optimizer = Ranger(targets.representation.predictor.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    batches = sampling.UniformOrByMagnitude(targets.goals, config.kernel_batch, config.magnitude_probability, config.seed)
    schedule = cosine(config.learning_rate, config.steps, floor=1e-6)
    warm_up = config.reconstruction_steps
    alone = LossWeights(reconstruction=1.0)
    yield Phase(
        "reconstruction",
        warm_up,
        lambda: (optimizer,),
        schedule,
        lambda step: all_at_once(None, targets, None, batches.batch(step), alone),
        evaluations=5,
    )
    if teaching:
        weights = LossWeights(reconstruction=1.0, feature_maps=config.feature_map_weight, logits=config.logit_weight, eps=1e-4)
        yield Phase(
            "distillation",
            config.steps - warm_up,
            lambda: (optimizer,),
            lambda step: schedule(warm_up + step),
            lambda step: all_at_once(
                teaching.network,
                targets,
                teaching.inputs(config, "images", step),
                batches.batch(warm_up + step),
                weights,
            ),
            evaluations=100,
        )


def muon(predictor: Predictor, share: float = 1.0) -> Optimizers:
    """Muon for the matrices; Adam for the rest, which has no singular values to make equal. `share` is a relative rate.

    Kernels are fitted in a fraction of the steps that Adam alone needs; see docs/method.md.
    """
    matrices = {f"{name}.weight": layer.weight for name, layer in predictor.linear()}
    others = [
        {"params": [parameter], RELATIVE_RATE: share if name.endswith("log_scales") else 0.05 * share}
        for name, parameter in predictor.named_parameters()
        if name not in matrices
    ]
    return Muon([{"params": list(matrices.values()), RELATIVE_RATE: share}]), torch.optim.Adam(others)


def cosine(peak: float, steps: int, *, warm_up: int = 0, floor: float = 0.0) -> Callable[[int], float]:
    """From `peak` down to `floor` along half a cosine, after a linear rise over `warm_up` steps."""

    def rate(step: int) -> float:
        rise = min(1.0, (step + 1) / (warm_up + 1))
        return rise * (floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * step / steps)))

    return rate
