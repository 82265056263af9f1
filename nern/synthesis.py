"""Synthesis of images from a network: matched noise (DeepInversion, Yin et al., arXiv 1912.08795).

Gradient descent changes normal noise until two things are so. In every channel that enters a batch norm, the mean and the
variance are those that the batch norm stores, the running statistics of the training data. A classifier classifies every image
as the class that was drawn for it. In this module, an image is an input of the network, of whatever shape.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nern import losses
from nern.errors import UnusableImages
from nern.evaluation import Choose, of_classifier
from nern.faults import is_device_fault, is_out_of_memory
from nern.graph.interpreter import GraphNetwork
from nern.graph.program import Node
from nern.images import CPU, Shape, microbatch_inputs, mirror_and_shift
from nern.objectives import Objective, OutputFacts
from nern.teachers import Batch, call, device_of
from nern.teachers.norms import has_statistics, norm_call

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

# The most images in a group. The statistics are those of one group. A group of large images has fewer, because a group is one
# microbatch (see nern.images). At least so many images are held out.
GROUP_IMAGES = 128

# The most numbers in the training images of a pool. They take 4 GiB in float32.
MAX_POOL_ELEMENTS = 2**30

# Weight of the cross-entropy of the classes. The weight of the statistics is 1.
CLASS_WEIGHT = 0.1


@dataclass(frozen=True)
class PoolSizes:
    """The number of images in a group, the number of groups for the training, and the number of held-out groups."""

    group_images: int
    training_groups: int
    held_out_groups: int

    @classmethod
    def of(cls, shapes: Sequence[Shape], images: int) -> "PoolSizes":
        """The sizes of a pool with at least `images` training images.

        `shapes` has the shape of each input of the network without the batch, such as (channels, height, width). Raises
        UnusableImages for more images than MAX_POOL_ELEMENTS allows.
        """
        limit = MAX_POOL_ELEMENTS // sum(map(math.prod, shapes))
        if images > limit:
            described = " and ".join(f"{list(shape)}" for shape in shapes)
            detail = f"{images} images of shape {described} are too many to synthesise: at most {limit} are possible"
            raise UnusableImages(detail, "/synthesised_images")
        group_images = min(GROUP_IMAGES, microbatch_inputs(shapes))
        return cls(group_images, -(-images // group_images), -(-GROUP_IMAGES // group_images))

    @property
    def groups(self) -> int:
        """The number of all groups."""
        return self.training_groups + self.held_out_groups


class ImagePool(nn.Module):
    """A source of synthesised images, in groups. The images begin as normal noise.

    `groups` has a tensor (group_images, ...) for each group and each input of the network: those of the first group, then
    those of the second group, and so on. The last groups are held out: `batch` does not draw from them. `classified` is the
    objective of the output that holds the classes, and `classes` has the class of each image, int64 (groups, group_images);
    both are None if no output holds classes.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        images: int,
        network: nn.Module,
        generator: torch.Generator,
        *,
        augment: bool = True,
        choose: Choose = of_classifier,
    ) -> None:
        """A pool of at least `images` training images, and of held-out images.

        `shapes` has the shape of each input without the batch, such as (channels, height, width). `choose` chooses the
        objectives of the outputs. If an output (B, classes) holds classes, each image gets a class, drawn at random. With
        `augment`, images (channels, height, width) are mirrored and shifted at random when they are drawn. Raises
        UnusableImages for too many images, and for a network that can't take them or has no batch norm with statistics.
        """
        super().__init__()
        self.sizes = PoolSizes.of(shapes, images)
        self.inputs = len(shapes)
        self.augment = augment
        self._are_images = self.inputs == 1 and len(shapes[0]) == 3
        classes, self.classified = _classes(network, shapes, choose)
        noise = [
            torch.randn(self.sizes.group_images, *shape, generator=generator)
            for _ in range(self.sizes.groups)
            for shape in shapes
        ]
        self.groups = nn.ParameterList(noise)
        drawn = (self.sizes.groups, self.sizes.group_images)
        self.classes = torch.randint(classes, drawn, generator=generator) if self.classified else None

    def group(self, number: int) -> list[nn.Parameter]:
        """The images of a group: a tensor (group_images, ...) for each input of the network."""
        return list(self.groups[number * self.inputs : (number + 1) * self.inputs])

    def batch(self, count: int, generator: torch.Generator, device: torch.device = CPU) -> Batch:
        """`count` training images drawn with replacement, on `device`: a tensor (count, ...) for each input of the network."""
        group_images = self.sizes.group_images
        chosen = torch.randint(self.sizes.training_groups * group_images, (count,), generator=generator).tolist()
        places = [divmod(number, group_images) for number in chosen]
        drawn = tuple(
            torch.stack([self.groups[group * self.inputs + part][row].detach() for group, row in places]).to(device)
            for part in range(self.inputs)
        )
        return self.shifted(drawn, generator) if self.augment else drawn

    def shifted(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch mirrored and shifted at random, if it has images (B, channels, height, width)."""
        return tuple(mirror_and_shift(part, generator) for part in batch) if self._are_images else batch

    def held_out(self) -> Iterator[Batch]:
        """The held-out groups: a tensor (group_images, ...) for each input of the network."""
        for number in range(self.sizes.training_groups, self.sizes.groups):
            yield tuple(part.detach() for part in self.group(number))


def follow_statistics(network: nn.Module, pool: ImagePool, group: int, generator: torch.Generator) -> dict[str, float]:
    """Computes the gradients of one group of images, and returns the losses.

    The loss of the statistics is the sum over all batch norms of the means over the channels of two terms. One term is the
    squared difference of the means over the stored variance. The other term is (variance / stored variance - 1)². The loss of
    the classes is the cross-entropy. Without classes, there is no such loss.
    """
    device = device_of(network)
    inputs = tuple(part.to(device) for part in pool.group(group))
    with statistics(network) as differences:
        outputs = call(network, {}, pool.shifted(inputs, generator))
    matching = torch.stack(differences).sum()
    if pool.classified is None or pool.classes is None:
        matching.backward()
        return {"statistics": matching.item()}
    logits = outputs[pool.classified.name]
    classes = F.cross_entropy(
        losses.logits(logits) if pool.classified.probabilities else logits, pool.classes[group].to(device)
    )
    (matching + CLASS_WEIGHT * classes).backward()
    return {"statistics": matching.item(), "classes": classes.item()}


@contextmanager
def statistics(network: nn.Module) -> Iterator[list[Tensor]]:
    """A context that collects the loss of the statistics of each batch norm during forward passes; see `follow_statistics`.

    The list has one float32 scalar for each batch norm that a forward pass uses. Raises UnusableImages if no batch norm of the
    network stores statistics.
    """
    differences: list[Tensor] = []

    def compare(norm: Any, args: tuple[Tensor, ...]) -> None:
        differences.append(_difference(args[0], norm.running_mean, norm.running_var, norm.eps))

    def compare_node(node: Node, arguments: Sequence[Any], result: Any) -> None:
        if (of_norm := norm_call(node, arguments)) is not None:
            differences.append(_difference(of_norm.input, of_norm.mean, of_norm.variance, of_norm.epsilon))

    missing = UnusableImages("matched noise needs running statistics, but the network has no batch norm that stores them")
    if isinstance(network, GraphNetwork):
        if not has_statistics(network.program):
            raise missing
        with network.observed(compare_node):
            yield differences
        return
    norms = [module for module in network.modules() if isinstance(module, NORMS) and module.running_mean is not None]
    if not norms:
        raise missing
    hooks = [norm.register_forward_pre_hook(compare) for norm in norms]
    try:
        yield differences
    finally:
        for hook in hooks:
            hook.remove()


def _difference(x: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    """The loss of the statistics of one batch norm with the input x (B, C, ...) and the stored statistics (C,)."""
    found_variance, found_mean = torch.var_mean(x, [dim for dim in range(x.ndim) if dim != 1], correction=0)
    floor = variance.clamp_min(epsilon)
    of_mean = ((found_mean - mean).square() / floor).mean()
    return of_mean + (found_variance / floor - 1).square().mean()


def _classes(network: nn.Module, shapes: Sequence[Shape], choose: Choose) -> tuple[int, Objective | None]:
    """The number of classes of the first output (B, classes) that holds classes, and its objective; (0, None) without one.

    Raises UnusableImages for a network that can't take inputs of these shapes or has no batch norm with statistics.
    """
    device = device_of(network)
    with torch.no_grad(), statistics(network):
        try:
            outputs = call(network, {}, tuple(torch.zeros(1, *shape, device=device) for shape in shapes))
        except (RuntimeError, ValueError, IndexError) as error:
            if is_out_of_memory(error) or is_device_fault(error):
                raise
            described = " and ".join(f"{shape}" for shape in shapes)
            reason = (str(error).splitlines() or [""])[0]
            raise UnusableImages(f"the network can't take inputs of shape {described}: {reason}") from error
    facts = [OutputFacts(name, (None, *one.shape[1:]), one.is_floating_point()) for name, one in outputs.items()]
    for objective in choose(facts, None):
        if objective.kind == "classes" and outputs[objective.name].ndim == 2:
            return outputs[objective.name].shape[1], objective
    return 0, None
