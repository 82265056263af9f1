"""Where distillation gets its images from: somebody's dataset, or noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from nern.errors import UnusableImages
from nern.request.options import NoiseKind

# Numbers in the inputs that a network is given at a time. It bounds the memory of a step: 27 images of 224 x 224 pixels.
MICROBATCH_ELEMENTS = 2**22

CPU = torch.device("cpu")


class ImageSource(Protocol):
    """A stream of network inputs."""

    def batch(self, size: int, generator: torch.Generator, device: torch.device = CPU) -> Tensor:
        """`size` inputs drawn at random, on `device`: normalised, float32 (size, channels, height, width)."""
        ...


@dataclass(frozen=True)
class Images:
    """Images in memory, uint8 of shape (n, height, width, channels), with one label each (int64) or none.

    An input of the network is (image / 255 - mean) / std, a mean and a standard deviation for each channel.
    """

    pixels_NHWC: Tensor
    labels_N: Tensor | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        channels = self.pixels_NHWC.shape[-1]
        if not len(self.mean) == len(self.std) == channels:
            raise UnusableImages(f"the images have {channels} channels, mean and std {len(self.mean)} and {len(self.std)}")
        if self.labels_N is not None and len(self.labels_N) != len(self.pixels_NHWC):
            raise UnusableImages(f"there are {len(self.pixels_NHWC)} images, but {len(self.labels_N)} labels")
        if any(tensor is not None and tensor.device != CPU for tensor in (self.pixels_NHWC, self.labels_N)):
            raise UnusableImages("the images have to be on the CPU; batches of them are moved where they are needed")
        if 0 in self.pixels_NHWC.shape[1:]:
            raise UnusableImages(f"images of shape {list(self.pixels_NHWC.shape)} have no pixels")

    def __len__(self) -> int:
        return len(self.pixels_NHWC)

    def normalised(self, pixels_BHWC: Tensor) -> Tensor:
        """uint8 images as network inputs: float32 (B, C, H, W), in memory with the channels last, as convolutions like it."""
        mean, std = torch.tensor([self.mean, self.std], device=pixels_BHWC.device).unbind()
        return ((pixels_BHWC.float() / 255 - mean) / std).movedim(-1, 1)

    def split(self, held_out: int, generator: torch.Generator, *, augment: bool) -> tuple["Subset", "Images"]:
        """Two disjoint random parts: one to train on, and `held_out` images for evaluation."""
        order = torch.randperm(len(self), generator=generator)
        rows, test = order[held_out:], order[:held_out]
        labels = None if self.labels_N is None else self.labels_N[test]
        return Subset(self, rows, augment), replace(self, pixels_NHWC=self.pixels_NHWC[test], labels_N=labels)


@dataclass(frozen=True)
class Subset:
    """Inputs drawn from those of the images whose numbers are in `rows`; the pixels, perhaps gigabytes, are not copied.

    `augment` mirrors half of the inputs and shifts all by up to an eighth of their size.
    """

    images: Images
    rows: Tensor
    augment: bool

    def batch(self, size: int, generator: torch.Generator, device: torch.device = CPU) -> Tensor:
        """Drawn with replacement."""
        chosen = self.rows[torch.randint(len(self.rows), (size,), generator=generator)]
        inputs = self.images.normalised(self.images.pixels_NHWC[chosen].to(device))
        return mirror_and_shift(inputs, generator) if self.augment else inputs


@dataclass(frozen=True)
class Noise:
    """Random inputs of one shape (channels, height, width): uniform in [-1, 1] or standard normal.

    "matched" starts from normal noise and is made like images by `nern.synthesis`.
    """

    kind: NoiseKind
    shape: tuple[int, int, int]

    def batch(self, size: int, generator: torch.Generator, device: torch.device = CPU) -> Tensor:
        if self.kind == "uniform":
            inputs = torch.rand(size, *self.shape, generator=generator) * 2 - 1
        else:
            inputs = torch.randn(size, *self.shape, generator=generator)
        return inputs.contiguous(memory_format=torch.channels_last).to(device)


def microbatch_inputs(shape: Sequence[int]) -> int:
    """How many inputs of a shape (channels, height, width) a network is given at a time."""
    return max(1, MICROBATCH_ELEMENTS // math.prod(shape))


def microbatches(inputs: Tensor) -> Sequence[Tensor]:
    """A batch of inputs in parts that a network is given at a time."""
    parts: Sequence[Tensor] = inputs.split(microbatch_inputs(inputs.shape[1:]))
    return parts


def mirror_and_shift(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors every image with probability 1/2 and shifts it by up to an eighth of its size, zeros coming in."""
    batch, _, height, width = x_BCHW.shape
    mirrored = torch.rand(batch, 1, generator=generator) < 0.5
    column = torch.arange(width).expand(batch, width)
    column = torch.where(mirrored, width - 1 - column, column)
    row = torch.arange(height) + torch.randint(-(height // 8), height // 8 + 1, (batch, 1), generator=generator)
    column = column + torch.randint(-(width // 8), width // 8 + 1, (batch, 1), generator=generator)
    # Drawn on the CPU, so that a seed means the same images everywhere.
    row, column = row.to(x_BCHW.device), column.to(x_BCHW.device)
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    sample = torch.arange(batch, device=x_BCHW.device)[:, None, None]
    shifted = x_BCHW[sample, :, row.clamp(0, height - 1)[:, :, None], column.clamp(0, width - 1)[:, None, :]]
    return (shifted * inside[..., None]).movedim(-1, 1)
