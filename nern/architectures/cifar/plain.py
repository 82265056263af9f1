"""Networks for CIFAR without shortcuts: LeNet, VGG, GoogLeNet and RepVGG.

All take images (batch, channels, height, width) to logits (batch, classes).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nern.architectures.cifar.layers import conv

# The widths of the convolutions of each stage; a max pooling follows each stage.
VGG_STAGES = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    19: ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512)),
}

# The linear layers of a VGG's classifier and what is between them. In the last one, dropout comes first.
Classifier = Literal["linear", "512", "4096", "512 after dropout"]


class LeNet(nn.Module):
    """Two 5x5 convolutions without padding and three linear layers, for images of 32 x 32 pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, 32, 32)."""
        out = F.max_pool2d(F.relu(self.conv1(x_BCHW)), 2)
        out = F.max_pool2d(F.relu(self.conv2(out)), 2).flatten(1)
        logits: Tensor = self.fc3(F.relu(self.fc2(F.relu(self.fc1(out)))))
        return logits


class VGG(nn.Module):
    """A VGG whose five poolings leave one pixel of an image of 32 x 32; with larger images, the mean of the pixels is taken."""

    def __init__(self, depth: int, classes: int, *, classifier: Classifier, norms: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for stage in VGG_STAGES[depth]:
            for width in stage:
                layers += [conv(inputs, width, 3, bias=True), *([nn.BatchNorm2d(width)] if norms else []), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = _classifier(classifier, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        logits: Tensor = self.classifier(self.features(x_BCHW).mean((2, 3)))
        return logits


def _classifier(kind: Classifier, classes: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(512, classes)
    if kind == "512 after dropout":
        first, second = nn.Linear(512, 512), nn.Linear(512, 512)
        return nn.Sequential(nn.Dropout(), first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), nn.Linear(512, classes))
    width = int(kind)
    first, second = nn.Linear(512, width), nn.Linear(width, width)
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), nn.Dropout(), nn.Linear(width, classes))


class Inception(nn.Module):
    """Four branches whose outputs are concatenated; the 5x5 convolution of the paper is two 3x3 convolutions."""

    def __init__(self, inputs: int, ones: int, threes: tuple[int, int], fives: tuple[int, int], pooled: int) -> None:
        super().__init__()
        self.b1 = _branch(inputs, (ones, 1))
        self.b2 = _branch(inputs, (threes[0], 1), (threes[1], 3))
        self.b3 = _branch(inputs, (fives[0], 1), (fives[1], 3), (fives[1], 3))
        self.b4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), *_branch(inputs, (pooled, 1)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.cat([self.b1(x_BCHW), self.b2(x_BCHW), self.b3(x_BCHW), self.b4(x_BCHW)], 1)


class GoogLeNet(nn.Module):
    """GoogLeNet (Szegedy et al., arXiv 1409.4842) with batch norms and a 3x3 stem."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.pre_layers = _branch(3, (192, 3))
        self.a3 = Inception(192, 64, (96, 128), (16, 32), 32)
        self.b3 = Inception(256, 128, (128, 192), (32, 96), 64)
        self.a4 = Inception(480, 192, (96, 208), (16, 48), 64)
        self.b4 = Inception(512, 160, (112, 224), (24, 64), 64)
        self.c4 = Inception(512, 128, (128, 256), (24, 64), 64)
        self.d4 = Inception(512, 112, (144, 288), (32, 64), 64)
        self.e4 = Inception(528, 256, (160, 320), (32, 128), 128)
        self.a5 = Inception(832, 256, (160, 320), (32, 128), 128)
        self.b5 = Inception(832, 384, (192, 384), (48, 128), 128)
        self.linear = nn.Linear(1024, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = F.max_pool2d(self.b3(self.a3(self.pre_layers(x_BCHW))), 3, 2, 1)
        out = self.e4(self.d4(self.c4(self.b4(self.a4(out)))))
        out = self.b5(self.a5(F.max_pool2d(out, 3, 2, 1)))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


def _branch(inputs: int, *convolutions: tuple[int, int]) -> nn.Sequential:
    """Convolutions of these widths and kernel sizes, each with a batch norm and a ReLU."""
    layers: list[nn.Module] = []
    for width, kernel in convolutions:
        layers += [conv(inputs, width, kernel, bias=True), nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers)


class RepVGGBlock(nn.Module):
    """A 3x3 and a 1x1 convolution and, where the shape stays, a batch norm, side by side (Ding et al., arXiv 2101.03697)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.rbr_identity = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None
        self.rbr_dense = _named(conv(inputs, outputs, 3, stride))
        self.rbr_1x1 = _named(conv(inputs, outputs, 1, stride))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = self.rbr_dense(x_BCHW) + self.rbr_1x1(x_BCHW)
        return F.relu(out if self.rbr_identity is None else out + self.rbr_identity(x_BCHW))


class RepVGG(nn.Module):
    """RepVGG-A with its branches, as it is trained. `widths` are the channels of the stages 1 to 4."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        inputs = min(64, widths[0])
        self.stage0 = RepVGGBlock(3, inputs, 1)
        for number, (blocks, width) in enumerate(zip((2, 4, 14, 1), widths, strict=True), 1):
            stage: list[nn.Module] = []
            for block in range(blocks):
                stage.append(RepVGGBlock(inputs, width, 2 if number > 1 and not block else 1))
                inputs = width
            self.add_module(f"stage{number}", nn.Sequential(*stage))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = x_BCHW
        for number in range(5):
            out = self.get_submodule(f"stage{number}")(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


def _named(convolution: nn.Conv2d) -> nn.Sequential:
    pair = nn.Sequential()
    pair.add_module("conv", convolution)
    pair.add_module("bn", nn.BatchNorm2d(convolution.out_channels))
    return pair
