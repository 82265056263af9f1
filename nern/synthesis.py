"""Synthesis of images from a network: matched noise (DeepInversion, Yin et al., arXiv 1912.08795).

Gradient descent changes normal noise until two things are so. In every channel that enters a batch norm, the mean and the
variance are those that the batch norm stores, the running statistics of the training data. The network classifies every image
as the class that was drawn for it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nern.errors import UnusableImages
from nern.faults import is_device_fault, is_out_of_memory
from nern.images import CPU, microbatch_inputs, mirror_and_shift

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
    def of(cls, shape: tuple[int, int, int], images: int) -> "PoolSizes":
        """The sizes of a pool with at least `images` training images of a shape (channels, height, width).

        Raises UnusableImages for more images than MAX_POOL_ELEMENTS allows.
        """
        limit = MAX_POOL_ELEMENTS // math.prod(shape)
        if images > limit:
            detail = f"{images} images of shape {list(shape)} are too many to synthesise: at most {limit} are possible"
            raise UnusableImages(detail, "/synthesised_images")
        group_images = min(GROUP_IMAGES, microbatch_inputs(shape))
        return cls(group_images, -(-images // group_images), -(-GROUP_IMAGES // group_images))

    @property
    def groups(self) -> int:
        """The number of all groups."""
        return self.training_groups + self.held_out_groups


class ImagePool(nn.Module):
    """A source of synthesised images. The images are in groups of shape (group_images, channels, height, width).

    The last groups are held out: `batch` does not draw from them. The images begin as normal noise.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        images: int,
        network: nn.Module,
        generator: torch.Generator,
        *,
        augment: bool = True,
    ) -> None:
        """A pool of at least `images` training images of a shape (channels, height, width), and of held-out images.

        Each image gets a class of `network`, drawn at random. With `augment`, drawn images are mirrored and shifted at random.
        Raises UnusableImages for too many images, and for a network that can't take them or has no batch norm with statistics.
        """
        super().__init__()
        sizes = PoolSizes.of(shape, images)
        self.augment = augment
        with torch.no_grad(), statistics(network):
            try:
                classes = network(torch.zeros(1, *shape, device=next(network.parameters()).device)).shape[1]
            except RuntimeError as error:
                if is_out_of_memory(error) or is_device_fault(error):
                    raise
                raise UnusableImages(f"the network can't take inputs of shape {shape}: {str(error).splitlines()[0]}") from error
        self.sizes = sizes
        noise = (torch.randn(sizes.group_images, *shape, generator=generator) for _ in range(sizes.groups))
        self.groups = nn.ParameterList(noise)
        self.classes = torch.randint(classes, (sizes.groups, sizes.group_images), generator=generator)

    def batch(self, count: int, generator: torch.Generator, device: torch.device = CPU) -> Tensor:
        """`count` training images drawn with replacement, on `device`: float32 (count, channels, height, width)."""
        group_images = self.sizes.group_images
        chosen = torch.randint(self.sizes.training_groups * group_images, (count,), generator=generator).tolist()
        inputs = torch.stack([self.groups[number // group_images][number % group_images].detach() for number in chosen]).to(
            device
        )
        return mirror_and_shift(inputs, generator) if self.augment else inputs

    def held_out(self) -> Iterator[Tensor]:
        """The held-out groups: float32 (group_images, channels, height, width) each."""
        for group in self.groups[self.sizes.training_groups :]:
            yield group.detach()


def follow_statistics(network: nn.Module, pool: ImagePool, group: int, generator: torch.Generator) -> dict[str, float]:
    """Computes the gradients of one group of images, and returns the losses.

    The loss of the statistics is the sum over all batch norms of the means over the channels of two terms. One term is the
    squared difference of the means over the stored variance. The other term is (variance / stored variance - 1)². The loss of
    the classes is the cross-entropy.
    """
    device = next(network.parameters()).device
    with statistics(network) as differences:
        logits = network(mirror_and_shift(pool.groups[group].to(device), generator))
    matching = torch.stack(differences).sum()
    classes = F.cross_entropy(logits, pool.classes[group].to(device))
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
        variance, mean = torch.var_mean(args[0], [dim for dim in range(args[0].ndim) if dim != 1], correction=0)
        floor = norm.running_var.clamp_min(norm.eps)
        of_mean = ((mean - norm.running_mean).square() / floor).mean()
        differences.append(of_mean + (variance / floor - 1).square().mean())

    norms = [module for module in network.modules() if isinstance(module, NORMS) and module.running_mean is not None]
    if not norms:
        raise UnusableImages("matched noise needs running statistics, but the network has no batch norm that stores them")
    hooks = [norm.register_forward_pre_hook(compare) for norm in norms]
    try:
        yield differences
    finally:
        for hook in hooks:
            hook.remove()
