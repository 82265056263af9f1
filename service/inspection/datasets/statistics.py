"""Mean and standard deviation of the pixels of images."""

import torch
from torch import Tensor

# The images are taken in parts of at most so many images and numbers, because a part is copied to float64.
PART_IMAGES = 1024
PART_ELEMENTS = 2**24


def mean_and_std(pixels_NHWC: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, for pixels scaled to 0..1: uint8, or float32 from 0 to 1."""
    scale = 255 if pixels_NHWC.dtype == torch.uint8 else 1
    _, height, width, channels = pixels_NHWC.shape
    sums = [torch.zeros(channels, dtype=torch.float64) for _ in range(2)]
    for part in pixels_NHWC.flatten(0, 2).split(min(PART_IMAGES * height * width, PART_ELEMENTS // channels)):
        values = part.double() / scale
        sums = [sums[0] + values.sum(0), sums[1] + values.square().sum(0)]
    mean, square = (total / (pixels_NHWC.numel() // channels) for total in sums)
    return mean.tolist(), (square - mean.square()).clamp_min(1e-12).sqrt().tolist()
