"""The inputs of distillation: images of a dataset, or noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from nern.errors import UnusableImages
from nern.request.options import NoiseKind

# The most numbers in the inputs of one forward pass of a network. This bounds the memory of a step. 27 images of 3 x 224 x 224
# have so many.
MICROBATCH_ELEMENTS = 2**22

CPU = torch.device("cpu")


Shape = tuple[int, ...]


class InputSource(Protocol):
    """A source of network inputs."""

    def batch(self, count: int, generator: torch.Generator, device: torch.device = CPU) -> tuple[Tensor, ...]:
        """`count` inputs drawn at random, on `device`: a tensor (count, ...) for each input of the network."""
        ...


@dataclass(frozen=True)
class Images:
    """Images in memory (n, height, width, channels), and their labels, int64 (n,), or None. Both are on the CPU.

    Pixels are uint8, or float32 from 0 to 1. An input of the network is (image / 255 - mean) / std; pixels of float32 are not
    divided. `mean` and `std` have a mean and a standard deviation for each channel. Raises UnusableImages if these do not fit
    each other.
    """

    pixels_NHWC: Tensor
    labels_N: Tensor | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.pixels_NHWC.dtype not in (torch.uint8, torch.float32):
            raise UnusableImages(f"the pixels are {self.pixels_NHWC.dtype}; they must be uint8, or float32 from 0 to 1")
        channels = self.pixels_NHWC.shape[-1]
        if not len(self.mean) == len(self.std) == channels:
            raise UnusableImages(
                f"the images have {channels} channels, but mean has {len(self.mean)} values and std has {len(self.std)}"
            )
        if self.labels_N is not None and len(self.labels_N) != len(self.pixels_NHWC):
            raise UnusableImages(f"there are {len(self.pixels_NHWC)} images, but {len(self.labels_N)} labels")
        if any(tensor is not None and tensor.device != CPU for tensor in (self.pixels_NHWC, self.labels_N)):
            raise UnusableImages("the images and labels must be on the CPU; batches are moved to the device of the network")
        if 0 in self.pixels_NHWC.shape[1:]:
            raise UnusableImages(f"images of shape {list(self.pixels_NHWC.shape)} have no pixels")

    def __len__(self) -> int:
        return len(self.pixels_NHWC)

    def normalised(self, pixels_BHWC: Tensor) -> Tensor:
        """Images as network inputs: uint8 or float32 (B, H, W, C) to float32 (B, C, H, W).

        In memory the channels come last. Convolutions are faster with this order.
        """
        mean, std = torch.tensor([self.mean, self.std], device=pixels_BHWC.device).unbind()
        scaled = pixels_BHWC.float() / 255 if pixels_BHWC.dtype == torch.uint8 else pixels_BHWC
        return ((scaled - mean) / std).movedim(-1, 1)

    def split(self, held_out: int, generator: torch.Generator, *, augment: bool) -> tuple["Subset", "Images"]:
        """Splits the images at random into images for the training and `held_out` images for evaluation."""
        order = torch.randperm(len(self), generator=generator)
        rows, test = order[held_out:], order[:held_out]
        labels = None if self.labels_N is None else self.labels_N[test]
        return Subset(self, rows, augment), replace(self, pixels_NHWC=self.pixels_NHWC[test], labels_N=labels)


@dataclass(frozen=True)
class Subset:
    """A source of inputs that draws from the images at `rows`, int64 (n,).

    The pixels are not copied, because they may take gigabytes. With `augment`, inputs are mirrored and shifted at random; see
    `mirror_and_shift`.
    """

    images: Images
    rows: Tensor
    augment: bool

    def batch(self, count: int, generator: torch.Generator, device: torch.device = CPU) -> tuple[Tensor, ...]:
        """`count` inputs drawn with replacement, on `device`: one tensor, float32 (count, channels, height, width)."""
        chosen = self.rows[torch.randint(len(self.rows), (count,), generator=generator)]
        inputs = self.images.normalised(self.images.pixels_NHWC[chosen].to(device))
        return (mirror_and_shift(inputs, generator) if self.augment else inputs,)


@dataclass(frozen=True)
class Noise:
    """A source of random inputs.

    "uniform" noise is uniform in [-1, 1], "normal" noise is standard normal. "matched" noise begins as normal noise, and
    `nern.synthesis` changes it until the batch-norm statistics of the network match. `shape` is the shape of the first input of
    the network without the batch, such as (channels, height, width). `others` has the shapes of its other inputs.
    """

    kind: NoiseKind
    shape: Shape
    others: tuple[Shape, ...] = ()

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes of all inputs."""
        return (self.shape, *self.others)

    def batch(self, count: int, generator: torch.Generator, device: torch.device = CPU) -> tuple[Tensor, ...]:
        """`count` random inputs, on `device`: a tensor float32 (count, ...) for each input of the network."""
        return tuple(self._draw(count, shape, generator).to(device) for shape in self.shapes)

    def _draw(self, count: int, shape: Shape, generator: torch.Generator) -> Tensor:
        if self.kind == "uniform":
            drawn = torch.rand(count, *shape, generator=generator) * 2 - 1
        else:
            drawn = torch.randn(count, *shape, generator=generator)
        return drawn.contiguous(memory_format=torch.channels_last) if len(shape) == 3 else drawn


def microbatch_inputs(shapes: Sequence[Sequence[int]]) -> int:
    """The number of inputs in one microbatch. `shapes` are those of the tensors of one input, without the batch."""
    return max(1, MICROBATCH_ELEMENTS // max(1, sum(map(math.prod, shapes))))


def microbatches(inputs: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """Splits a batch of inputs, a tensor (B, ...) for each input of the network, into the inputs of one forward pass each."""
    count = microbatch_inputs([part.shape[1:] for part in inputs])
    return list(zip(*(part.split(count) for part in inputs), strict=True))


def mirror_and_shift(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors every image with probability 1/2 and shifts it by up to an eighth of its height and width; same shape.

    A shift moves zeros in at the border.
    """
    batch, _, height, width = x_BCHW.shape
    mirrored = torch.rand(batch, 1, generator=generator) < 0.5
    column = torch.arange(width).expand(batch, width)
    column = torch.where(mirrored, width - 1 - column, column)
    row = torch.arange(height) + torch.randint(-(height // 8), height // 8 + 1, (batch, 1), generator=generator)
    column = column + torch.randint(-(width // 8), width // 8 + 1, (batch, 1), generator=generator)
    # The numbers were drawn on the CPU, so that a seed gives the same images on every device.
    row, column = row.to(x_BCHW.device), column.to(x_BCHW.device)
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    sample = torch.arange(batch, device=x_BCHW.device)[:, None, None]
    shifted = x_BCHW[sample, :, row.clamp(0, height - 1)[:, :, None], column.clamp(0, width - 1)[:, None, :]]
    return (shifted * inside[..., None]).movedim(-1, 1)
