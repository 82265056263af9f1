"""The two recipes, as phases of one training loop."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from nern.images import ImageSource
from nern.optim import Ranger
from nern.training import sampling
from nern.training.config import DecoupledConfig, PaperConfig
from nern.training.gradients import LossWeights, all_at_once, reconstruct
from nern.training.targets import Targets

PhaseName = Literal["reconstruction", "distillation"]

# A parameter group's learning rate is the phase's times this entry of the group, or times 1.
RELATIVE_RATE = "relative_rate"

Gradients = Callable[[int], dict[str, float]]


@dataclass(frozen=True)
class Phase:
    """`gradients` fills the predictor's gradients and returns the losses; it and `learning_rate` are functions of the number
    of steps that the phase has behind it.

    `evaluations` says how often, over the phase, it is worth looking at the whole network.
    """

    name: PhaseName
    steps: int
    optimizers: tuple[torch.optim.Optimizer, ...]
    learning_rate: Callable[[int], float]
    gradients: Gradients
    evaluations: int = 20


@dataclass(frozen=True)
class Teaching:
    """What distillation needs: the original network and a source of inputs."""

    network: nn.Module
    images: ImageSource


def phases(config: DecoupledConfig | PaperConfig, targets: Targets, teaching: Teaching | None) -> list[Phase]:
    """The phases of a resolved configuration that have any steps."""
    recipe = paper(config, targets, teaching) if isinstance(config, PaperConfig) else decoupled(config, targets, teaching)
    return [phase for phase in recipe if phase.steps]


def decoupled(config: DecoupledConfig, targets: Targets, teaching: Teaching | None) -> Iterator[Phase]:
    """Batches of tiles against the weights alone; then all tiles against the teacher alone, in small steps."""
    assert config.reconstruction_steps is not None, "resolve() comes first"
    representation = targets.representation
    count = len(representation.tiles)
    batches = sampling.Shuffled(count, config.kernel_batch, config.seed)
    steps = config.reconstruction_steps
    schedule = cosine(config.learning_rate, steps, warm_up=steps // 50)
    yield Phase(
        "reconstruction",
        steps,
        muon(representation.predictor),
        schedule,
        lambda step: reconstruct(targets, batches.batch(step)),
        evaluations=5,
    )
    if teaching:
        weights = LossWeights(logits=1.0, feature_maps=config.feature_map_weight)
        steps = config.steps - config.reconstruction_steps
        yield Phase(
            "distillation",
            steps,
            (torch.optim.Adam(representation.predictor.parameters()),),
            cosine(config.distillation_learning_rate, steps, warm_up=steps // 50),
            lambda step: all_at_once(
                teaching.network,
                targets,
                teaching.images.batch(config.image_batch, sampling.generator(config.seed, "images", step)),
                torch.arange(count),
                weights,
            ),
        )


def paper(config: PaperConfig, targets: Targets, teaching: Teaching | None) -> Iterator[Phase]:
    """All losses at once, their gradient through a batch of tiles; one optimizer and schedule throughout."""
    assert config.reconstruction_steps is not None, "resolve() comes first"
    optimizer = Ranger(targets.representation.predictor.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    batches = sampling.UniformOrByMagnitude(targets.tiles, config.kernel_batch, config.magnitude_probability, config.seed)
    schedule = cosine(config.learning_rate, config.steps, floor=1e-6)
    warm_up = config.reconstruction_steps
    alone = LossWeights(reconstruction=1.0)
    yield Phase(
        "reconstruction",
        warm_up,
        (optimizer,),
        schedule,
        lambda step: all_at_once(None, targets, None, batches.batch(step), alone),
        evaluations=5,
    )
    if teaching:
        weights = LossWeights(reconstruction=1.0, feature_maps=config.feature_map_weight, logits=config.logit_weight, eps=1e-4)
        yield Phase(
            "distillation",
            config.steps - warm_up,
            (optimizer,),
            lambda step: schedule(warm_up + step),
            lambda step: all_at_once(
                teaching.network,
                targets,
                teaching.images.batch(config.image_batch, sampling.generator(config.seed, "images", step)),
                batches.batch(warm_up + step),
                weights,
            ),
        )


def muon(predictor: nn.Module) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices, Adam for the biases, which have no singular values to make equal.

    Kernels are fitted in a fraction of the steps that Adam alone needs; see docs/method.md.
    """
    matrices = [parameter for parameter in predictor.parameters() if parameter.ndim == 2]
    biases = [parameter for parameter in predictor.parameters() if parameter.ndim < 2]
    return (
        torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.Adam([{"params": biases, RELATIVE_RATE: 0.1}]),
    )


def cosine(peak: float, steps: int, *, warm_up: int = 0, floor: float = 0.0) -> Callable[[int], float]:
    """From `peak` down to `floor` along half a cosine, after a linear rise over `warm_up` steps."""

    def rate(step: int) -> float:
        rise = min(1.0, (step + 1) / (warm_up + 1))
        return rise * (floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * step / steps)))

    return rate
