"""Tasks: inputs and targets that are made from data that packages carry, a loss, and a measure of quality.

scikit-learn carries the handwritten digits (1,797 images of 8 x 8 pixels) and two photographs. Waveforms and shapes are
computed. Every task has a training set and a test set that is used for nothing else.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

Outputs = tuple[Tensor, ...]
Loss = Callable[[Outputs, Tensor], Tensor]
Quality = Callable[[Outputs, Tensor], float]

TEST_DIGITS = 500
CLASSES = 10


@dataclass(frozen=True)
class Task:
    """Inputs (one tensor for each input of a network, N x anything) and targets, for training and for the test.

    quality: a number of which more is better, in `unit`: accuracy in percent, or PSNR in dB.
    objective: what the outputs mean, in the words of the option `objective`.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    test_inputs: tuple[Tensor, ...]
    test_targets: Tensor
    loss: Loss
    quality: Quality
    unit: str
    objective: Literal["classes", "values"]


def accuracy(outputs: Outputs, targets: Tensor) -> float:
    """Percentage of inputs, or of positions, whose most probable class is the target."""
    return 100 * (outputs[0].argmax(1) == targets).double().mean().item()


def cross_entropy(outputs: Outputs, targets: Tensor) -> Tensor:
    """Cross-entropy of the first output."""
    return F.cross_entropy(outputs[0], targets)


def psnr(outputs: Outputs, targets: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of the first output, for values from 0 to 1."""
    return -10 * math.log10(F.mse_loss(outputs[0], targets).item())


def squared_error(outputs: Outputs, targets: Tensor) -> Tensor:
    """Mean squared error of the first output."""
    return F.mse_loss(outputs[0], targets)


@cache
def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images in 0..1, (N, 1, 8, 8), and labels: for training, then for the test."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    images = torch.from_numpy(digits.images[order] / 16).float()[:, None]
    labels = torch.from_numpy(digits.target[order]).long()
    return images[TEST_DIGITS:], labels[TEST_DIGITS:], images[:TEST_DIGITS], labels[:TEST_DIGITS]


def _classification(prepare: Callable[[Tensor], tuple[Tensor, ...]], copies: int = 1) -> Task:
    images, labels, test_images, test_labels = _digits()
    images, labels = images.repeat(copies, 1, 1, 1), labels.repeat(copies)
    return Task(prepare(images), labels, prepare(test_images), test_labels, cross_entropy, accuracy, "% accuracy", "classes")


@cache
def digits(size: int = 16, channels: int = 1) -> Task:
    """Classification of digits of so many pixels: in grey, or each in four pairs of random colours, a dark and a light one."""
    generator = torch.Generator().manual_seed(1)

    def prepare(images: Tensor) -> tuple[Tensor, ...]:
        larger = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        if channels == 1:
            return ((larger - 0.3) / 0.35,)
        dark, light = (torch.rand(len(images), channels, 1, 1, generator=generator) for _ in range(2))
        dark, light = 0.4 * dark, 1 - 0.4 * light
        dark_ink = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        ink, paper = torch.where(dark_ink, dark, light), torch.where(dark_ink, light, dark)
        return (larger * (ink - paper) + paper - 0.5,)

    return _classification(prepare, copies=1 if channels == 1 else 4)


@cache
def halves() -> Task:
    """Classification of digits whose upper and lower halves are two inputs."""

    def prepare(images: Tensor) -> tuple[Tensor, ...]:
        larger = F.interpolate(images, size=(16, 16), mode="bilinear", align_corners=False) - 0.3
        return larger[:, :, :8].contiguous(), larger[:, :, 8:].contiguous()

    return _classification(prepare)


@cache
def rows() -> Task:
    """Classification of digits as sequences of 16 rows with 16 numbers: (N, 16, 16)."""
    return _classification(lambda images: (F.interpolate(images, size=(16, 16), mode="bilinear")[:, 0] - 0.3,))


@cache
def segmentation() -> Task:
    """For each of 32 x 32 pixels the digit that the pixel belongs to, or the background (class 10)."""
    generator = torch.Generator().manual_seed(2)

    def scenes(images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
        large = F.interpolate(images, size=(16, 16), mode="bilinear", align_corners=False)[:, 0]
        inputs = 0.15 * torch.rand(count, 1, 32, 32, generator=generator)
        targets = torch.full((count, 32, 32), CLASSES)
        chosen = torch.randint(len(images), (count, 2), generator=generator).tolist()
        places = torch.randint(0, 17, (count, 2, 2), generator=generator).tolist()
        for number in range(count):
            for digit, (row, column) in zip(chosen[number], places[number], strict=True):
                window = (slice(row, row + 16), slice(column, column + 16))
                ink = large[digit] > 0.35
                inputs[number, 0][window] = torch.maximum(inputs[number, 0][window], large[digit])
                targets[number][window] = torch.where(ink, labels[digit], targets[number][window])
        return (inputs - 0.2) / 0.3, targets

    images, labels, test_images, test_labels = _digits()
    inputs, targets = scenes(images, labels, 1200)
    test_inputs, test_targets = scenes(test_images, test_labels, 300)
    return Task((inputs,), targets, (test_inputs,), test_targets, cross_entropy, accuracy, "% of pixels", "classes")


@cache
def _patches() -> tuple[Tensor, Tensor]:
    """Patches of photographs, (N, 3, 32, 32) in 0..1: of the left three quarters for training, of the rest for the test."""
    generator = torch.Generator().manual_seed(3)
    photographs = [torch.from_numpy(image.copy()).float().movedim(-1, 0) / 255 for image in load_sample_images().images]
    border = 480

    def patches(count: int, first: int, last: int) -> Tensor:
        cut = []
        for number in range(count):
            photograph = photographs[number % len(photographs)]
            row = int(torch.randint(0, photograph.shape[1] - 32, (), generator=generator))
            column = int(torch.randint(first, last - 32, (), generator=generator))
            cut.append(photograph[:, row : row + 32, column : column + 32])
        return torch.stack(cut)

    return patches(1500, 0, border), patches(300, border, photographs[0].shape[2])


@cache
def denoising() -> Task:
    """The clean patch of a photograph from one with normal noise of standard deviation 0.1."""
    generator = torch.Generator().manual_seed(4)
    clean, test_clean = _patches()
    noisy, test_noisy = (patch + 0.1 * torch.randn(patch.shape, generator=generator) for patch in (clean, test_clean))
    return Task((noisy,), clean, (test_noisy,), test_clean, squared_error, psnr, "dB", "values")


@cache
def enlarging(factor: int = 2) -> Task:
    """A patch of a photograph from one that was shrunk by a factor."""
    large, test_large = _patches()
    small, test_small = (F.avg_pool2d(patch, factor) for patch in (large, test_large))
    return Task((small,), large, (test_small,), test_large, squared_error, psnr, "dB", "values")


@cache
def drawing() -> Task:
    """A digit of 16 x 16 pixels from its class and eight numbers, which are the digit's projections on eight patterns."""
    generator = torch.Generator().manual_seed(5)
    patterns = torch.randn(64, 8, generator=generator) / 4

    def codes(images: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([F.one_hot(labels, CLASSES).float(), (images.flatten(1) - 0.3) @ patterns], 1)

    images, labels, test_images, test_labels = _digits()
    larger, test_larger = (F.interpolate(part, size=(16, 16), mode="bilinear") for part in (images, test_images))
    inputs, test_inputs = codes(images, labels), codes(test_images, test_labels)
    return Task((inputs,), larger, (test_inputs,), test_larger, squared_error, psnr, "dB", "values")


@cache
def copying() -> Task:
    """A digit of 16 x 16 pixels from itself, for autoencoders."""
    images, _, test_images, _ = _digits()
    larger, test_larger = (F.interpolate(part, size=(16, 16), mode="bilinear") for part in (images, test_images))
    return Task((larger,), larger, (test_larger,), test_larger, squared_error, psnr, "dB", "values")


@cache
def detection() -> Task:
    """Where digits are: a map of 8 x 8 cells with the class of the digit whose centre is in the cell, or none (class 10)."""
    scenes = segmentation()
    generator = torch.Generator().manual_seed(6)

    def boards(images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
        inputs = 0.15 * torch.rand(count, 1, 32, 32, generator=generator)
        targets = torch.full((count, 8, 8), CLASSES)
        chosen = torch.randint(len(images), (count, 3), generator=generator).tolist()
        corners = torch.stack([torch.randperm(9, generator=generator)[:3] for _ in range(count)]).tolist()
        for number in range(count):
            for digit, corner in zip(chosen[number], corners[number], strict=True):
                row, column = 10 * (corner // 3), 10 * (corner % 3)
                inputs[number, 0, row : row + 8, column : column + 8] += images[digit, 0]
                targets[number, (row + 4) // 4, (column + 4) // 4] = labels[digit]
        return (inputs - 0.2) / 0.3, targets

    images, labels, test_images, test_labels = _digits()
    inputs, targets = boards(images, labels, len(scenes.targets))
    test_inputs, test_targets = boards(test_images, test_labels, len(scenes.test_targets))

    def loss(outputs: Outputs, targets: Tensor) -> Tensor:
        # Most cells are empty. They count less, so that digits are found.
        weights = torch.ones(CLASSES + 1)
        weights[CLASSES] = 0.1
        return F.cross_entropy(outputs[0], targets, weight=weights)

    def found(outputs: Outputs, targets: Tensor) -> float:
        right, digit = outputs[0].argmax(1) == targets, targets != CLASSES
        return 100 * right[digit].double().mean().item()

    return Task((inputs,), targets, (test_inputs,), test_targets, loss, found, "% of digits found", "classes")


@cache
def audio() -> Task:
    """Classification of waveforms of 1,024 samples: eight kinds of sound, with random pitch, phase and noise."""
    generator = torch.Generator().manual_seed(7)

    def sounds(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 8
        time = torch.arange(1024) / 1024
        pitch = 20 + 40 * torch.rand(count, 1, generator=generator)
        phase = torch.rand(count, 1, generator=generator)
        turns = pitch * time + phase
        sine = (2 * math.pi * turns).sin()
        waves = torch.stack(
            [
                sine,
                sine.sign(),
                2 * (turns % 1) - 1,
                (2 * math.pi * (turns + pitch * time**2)).sin(),
                sine * (2 * math.pi * 4 * time).sin(),
                (2 * math.pi * turns + 3 * (2 * math.pi * 6 * time).sin()).sin(),
                sine * (-6 * time).exp(),
                0.6 * sine + 0.6 * (2 * math.pi * 1.5 * turns).sin(),
            ]
        )
        chosen = waves[labels, torch.arange(count)]
        return (chosen + 0.4 * torch.randn(count, 1024, generator=generator))[:, None], labels

    inputs, targets = sounds(1600)
    test_inputs, test_targets = sounds(400)
    return Task((inputs,), targets, (test_inputs,), test_targets, cross_entropy, accuracy, "% accuracy", "classes")


@cache
def video() -> Task:
    """Classification of eight frames of 16 x 16 pixels by the direction in which a digit moves: (N, 1, 8, 16, 16)."""
    generator = torch.Generator().manual_seed(8)
    images, _, test_images, _ = _digits()

    def films(images: Tensor, count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 8
        inputs = 0.3 * torch.rand(count, 1, 8, 16, 16, generator=generator)
        chosen = torch.randint(len(images), (count,), generator=generator).tolist()
        for number in range(count):
            angle = 2 * math.pi * int(labels[number]) / 8
            for frame in range(8):
                distance = 4 * (frame - 3.5) / 3.5
                row, column = (round(4 + distance * part) for part in (math.sin(angle), math.cos(angle)))
                inputs[number, 0, frame, row : row + 8, column : column + 8] += images[chosen[number], 0]
        return inputs - 0.3, labels

    inputs, targets = films(images, 800)
    test_inputs, test_targets = films(test_images, 300)
    return Task((inputs,), targets, (test_inputs,), test_targets, cross_entropy, accuracy, "% accuracy", "classes")
