"""Images out of a network itself: inputs that give its batch norms the statistics which they remember.

After DeepInversion (Yin et al., arXiv 1912.08795): noise is changed by gradient descent until the mean and variance of every
channel that enters a batch norm are those of the training data, and every image is of a class that was drawn for it.
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

# Images whose statistics are matched together; fewer of large ones (see nern.images.microbatches). As many are held out.
GROUP_IMAGES = 128

# Numbers in all images of a pool: 4 GiB in float32.
MAX_POOL_ELEMENTS = 2**30

# Weight of the classes' cross-entropy beside the statistics.
CLASS_WEIGHT = 0.1


@dataclass(frozen=True)
class PoolSizes:
    """How many images form a group, and how many groups are for training and held out."""

    group_images: int
    training_groups: int
    held_out_groups: int

    @classmethod
    def of(cls, shape: tuple[int, int, int], images: int) -> "PoolSizes":
        """For at least `images` training images of a shape. Raises UnusableImages if a pool may not hold so many."""
        most = MAX_POOL_ELEMENTS // math.prod(shape)
        if images > most:
            detail = f"{images} images of shape {list(shape)} are too many to make: at most {most} are"
            raise UnusableImages(detail, "/synthesised_images")
        group_images = min(GROUP_IMAGES, microbatch_inputs(shape))
        return cls(group_images, -(-images // group_images), -(-GROUP_IMAGES // group_images))

    @property
    def groups(self) -> int:
        return self.training_groups + self.held_out_groups


class ImagePool(nn.Module):
    """A pool of images (n, channels, height, width) in groups; the last ones are held out from `batch`."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        images: int,
        network: nn.Module,
        generator: torch.Generator,
        *,
        augment: bool = True,
    ) -> None:
        """At least `images` of them besides those held out, for classes that `network` knows. `augment` mirrors and shifts
        what is drawn. Raises UnusableImages.
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

    def batch(self, size: int, generator: torch.Generator, device: torch.device = CPU) -> Tensor:
        """`size` images drawn with replacement, on `device`: (size, channels, height, width)."""
        group_images = self.sizes.group_images
        chosen = torch.randint(self.sizes.training_groups * group_images, (size,), generator=generator).tolist()
        inputs = torch.stack([self.groups[number // group_images][number % group_images].detach() for number in chosen]).to(
            device
        )
        return mirror_and_shift(inputs, generator) if self.augment else inputs

    def held_out(self) -> Iterator[Tensor]:
        """The groups that are not drawn from."""
        for group in self.groups[self.sizes.training_groups :]:
            yield group.detach()


def follow_statistics(network: nn.Module, pool: ImagePool, group: int, generator: torch.Generator) -> dict[str, float]:
    """Fills the gradients of one group of images and returns the losses.

    The statistics' loss is dimensionless: squared differences of means over variances, and of variances as ratios, each the
    mean over the channels and the sum over the batch norms.
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
    """Collects how far the inputs of each batch norm are from what it remembers, during forward passes.

    Raises UnusableImages if no batch norm of the network remembers anything.
    """
    differences: list[Tensor] = []

    def compare(norm: Any, args: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(args[0], [dim for dim in range(args[0].ndim) if dim != 1], correction=0)
        floor = norm.running_var.clamp_min(norm.eps)
        of_mean = ((mean - norm.running_mean).square() / floor).mean()
        differences.append(of_mean + (variance / floor - 1).square().mean())

    norms = [module for module in network.modules() if isinstance(module, NORMS) and module.running_mean is not None]
    if not norms:
        raise UnusableImages("the network has no batch norm whose statistics images could be matched to")
    hooks = [norm.register_forward_pre_hook(compare) for norm in norms]
    try:
        yield differences
    finally:
        for hook in hooks:
            hook.remove()
