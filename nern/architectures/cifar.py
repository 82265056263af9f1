"""The residual networks for CIFAR (He et al., arXiv 1512.03385, section 4.2).

A network of depth 6n + 2 has three stages of n basic blocks.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = (8, 14, 20, 32, 44, 56, 110)

Shortcut = Literal["A", "B"]


class PadShortcut(nn.Module):
    """The shortcut of option A, without parameters: (B, C, H, W) to (B, C + new_channels, H/2, W/2), rounded up.

    It takes every second pixel. The new channels are 0. Half of them come before the channels of the input, half after.
    """

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.before = new_channels // 2
        self.after = new_channels - self.before

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.pad(x_BCHW[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut: (B, inputs, H, W) to (B, outputs, H/stride, W/stride), rounded up."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = (
                PadShortcut(outputs - inputs)
                if shortcut == "A"
                else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x_BCHW)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x_BCHW)
        return self.relu(out)  # type: ignore[no-any-return]  # nn.Module calls are untyped


class ResNet(nn.Module):
    """A residual network: images (batch, channels, height, width) to logits (batch, classes).

    Raises ValueError for a depth that is not in DEPTHS.
    """

    def __init__(self, depth: int, *, classes: int = 10, channels: int = 3, shortcut: Shortcut = "A") -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth {depth} is not one of {DEPTHS}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, blocks, stride=1, shortcut=shortcut)
        self.layer2 = _stage(16, 32, blocks, stride=2, shortcut=shortcut)
        self.layer3 = _stage(32, 64, blocks, stride=2, shortcut=shortcut)
        self.linear = nn.Linear(64, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = self.relu(self.bn1(self.conv1(x_BCHW)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(out.mean((2, 3)))  # type: ignore[no-any-return]  # nn.Module calls are untyped


def _stage(inputs: int, outputs: int, blocks: int, *, stride: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride=stride, shortcut=shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, stride=1, shortcut=shortcut) for _ in range(blocks - 1)))
