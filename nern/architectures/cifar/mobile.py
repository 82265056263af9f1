"""Networks of depthwise convolutions for CIFAR: MobileNet, EfficientNet and ShuffleNet, with strides for images of 32 pixels.

All take images (batch, channels, height, width) to logits (batch, classes).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nern.architectures.cifar.layers import conv, normed, shuffled
from nern.architectures.cifar.residual import SqueezeExcitation

# Channels and stride of each block of MobileNet.
MOBILENET = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))

# Expansion, channels, blocks and stride of each stage of MobileNetV2.
MOBILENET_V2 = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

# Expansion, channels, blocks, kernel size and stride of each stage of EfficientNet-B0.
EFFICIENTNET_B0 = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)


class SeparableBlock(nn.Module):
    """A depthwise and a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, inputs, 3, stride, inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = conv(inputs, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x_BCHW))))))


class MobileNet(nn.Module):
    """MobileNet (Howard et al., arXiv 1704.04861)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 32, 3)
        self.bn1 = nn.BatchNorm2d(32)
        blocks: list[nn.Module] = []
        inputs = 32
        for outputs, stride in MOBILENET:
            blocks.append(SeparableBlock(inputs, outputs, stride))
            inputs = outputs
        self.layers = nn.Sequential(*blocks)
        self.linear = nn.Linear(1024, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = self.layers(F.relu(self.bn1(self.conv1(x_BCHW))))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class InvertedBlock(nn.Module):
    """1x1, depthwise and 1x1 convolutions. With stride 1, the input is added, through a convolution if the widths differ."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * inputs
        self.stride = stride
        self.conv1 = conv(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride, inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = normed(conv(inputs, outputs, 1)) if stride == 1 and inputs != outputs else nn.Sequential()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x_BCHW)))
        out = F.relu(self.bn2(self.conv2(out)))
        narrow: Tensor = self.bn3(self.conv3(out))
        return narrow + self.shortcut(x_BCHW) if self.stride == 1 else narrow


class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al., arXiv 1801.04381). Every block has an expansion, the first too."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 32, 3)
        self.bn1 = nn.BatchNorm2d(32)
        inputs = 32
        blocks: list[nn.Module] = []
        for expansion, outputs, count, stride in MOBILENET_V2:
            for block in range(count):
                blocks.append(InvertedBlock(inputs, outputs, expansion, 1 if block else stride))
                inputs = outputs
        self.layers = nn.Sequential(*blocks)
        self.conv2 = conv(320, 1280, 1)
        self.bn2 = nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = self.layers(F.relu(self.bn1(self.conv1(x_BCHW))))
        out = F.relu(self.bn2(self.conv2(out)))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class Residual(nn.Module):
    """Layers called `conv`. With `skip`, their input is added to their output."""

    def __init__(self, *layers: nn.Module, skip: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(*layers)
        self.skip = skip

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = self.conv(x_BCHW)
        return x_BCHW + out if self.skip else out


class ScaledMobileNetV2(nn.Module):
    """MobileNetV2 of any width, under torchvision's names."""

    def __init__(self, multiplier: float, classes: int) -> None:
        super().__init__()
        inputs = _divisible(32 * multiplier)
        last = _divisible(1280 * max(1, multiplier))
        features: list[nn.Module] = [normed(conv(3, inputs, 3), nn.ReLU6())]
        for expansion, width, count, stage_stride in MOBILENET_V2:
            outputs = _divisible(width * multiplier)
            for block in range(count):
                inner = inputs * expansion
                stride = 1 if block else stage_stride
                expand = [normed(conv(inputs, inner, 1), nn.ReLU6())] if expansion != 1 else []
                layers = [*expand, normed(conv(inner, inner, 3, stride, inner), nn.ReLU6()), *normed(conv(inner, outputs, 1))]
                features.append(Residual(*layers, skip=stride == 1 and inputs == outputs))
                inputs = outputs
        features.append(normed(conv(inputs, last, 1), nn.ReLU6()))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        logits: Tensor = self.classifier(self.features(x_BCHW).mean((2, 3)))
        return logits


def _divisible(width: float) -> int:
    """The multiple of 8 next to a width, but not less than nine tenths of it."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


class SwishExcitation(SqueezeExcitation):
    """A squeeze-excitation with the activation of EfficientNet."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = F.silu(self.se1(x_BCHW.mean((2, 3), keepdim=True)))
        return x_BCHW * self.se2(inner).sigmoid()  # type: ignore[no-any-return]  # nn.Module calls are untyped


class EfficientBlock(nn.Module):
    """1x1, depthwise and 1x1 convolutions with a squeeze-excitation. With an expansion of 1, the first one is not used."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = expansion * inputs
        self.expands, self.skip = expansion != 1, stride == 1 and inputs == outputs
        self.conv1 = conv(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, kernel, stride, inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.se = SwishExcitation(inner, inputs // 4)
        self.conv3 = conv(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = F.silu(self.bn1(self.conv1(x_BCHW))) if self.expands else x_BCHW
        out = self.se(F.silu(self.bn2(self.conv2(out))))
        narrow: Tensor = self.bn3(self.conv3(out))
        return narrow + x_BCHW if self.skip else narrow


class EfficientNetB0(nn.Module):
    """EfficientNet-B0 (Tan and Le, arXiv 1905.11946) with a stem of stride 1."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 32, 3)
        self.bn1 = nn.BatchNorm2d(32)
        inputs = 32
        blocks: list[nn.Module] = []
        for expansion, outputs, count, kernel, stride in EFFICIENTNET_B0:
            for block in range(count):
                blocks.append(EfficientBlock(inputs, outputs, expansion, kernel, 1 if block else stride))
                inputs = outputs
        self.layers = nn.Sequential(*blocks)
        self.linear = nn.Linear(320, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = self.layers(F.silu(self.bn1(self.conv1(x_BCHW))))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class ShuffledBlock(nn.Module):
    """Grouped 1x1, depthwise and grouped 1x1 convolutions. With stride 2, the pooled input is concatenated, else added."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, groups: int) -> None:
        super().__init__()
        self.stride = stride
        inner = outputs // 4
        self.groups = 1 if inputs == 24 else groups
        self.conv1 = conv(inputs, inner, 1, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride, inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, outputs, 1, groups=groups)
        self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = shuffled(F.relu(self.bn1(self.conv1(x_BCHW))), self.groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        if self.stride == 2:
            return F.relu(torch.cat([out, F.avg_pool2d(x_BCHW, 3, 2, 1)], 1))
        return F.relu(out + x_BCHW)


class ShuffleNet(nn.Module):
    """ShuffleNet (Zhang et al., arXiv 1707.01083) with a 1x1 stem."""

    def __init__(self, widths: Sequence[int], groups: int, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 24, 1)
        self.bn1 = nn.BatchNorm2d(24)
        inputs = 24
        for number, (width, count) in enumerate(zip(widths, (4, 8, 4), strict=True), 1):
            first = ShuffledBlock(inputs, width - inputs, stride=2, groups=groups)
            others = (ShuffledBlock(width, width, stride=1, groups=groups) for _ in range(count - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *others))
            inputs = width
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = F.relu(self.bn1(self.conv1(x_BCHW)))
        for number in (1, 2, 3):
            out = self.get_submodule(f"layer{number}")(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class SplitBlock(nn.Module):
    """1x1, depthwise and 1x1 convolutions of the second half of the channels; then the channels are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = conv(half, half, 3, 1, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        first, second = x_BCHW.chunk(2, 1)
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(second)))))
        return shuffled(torch.cat([first, F.relu(self.bn3(self.conv3(out)))], 1), 2)


class DownBlock(nn.Module):
    """Two branches of stride 2, whose outputs are concatenated and shuffled."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = conv(inputs, inputs, 3, 2, inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = conv(inputs, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(inputs, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = conv(half, half, 3, 2, half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x_BCHW)))))
        right = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x_BCHW)))))
        return shuffled(torch.cat([left, F.relu(self.bn5(self.conv5(right)))], 1), 2)


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 (Ma et al., arXiv 1807.11164) without the max pooling. `widths` are of three stages and the last layer."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 24, 3)
        self.bn1 = nn.BatchNorm2d(24)
        inputs = 24
        for number, (width, count) in enumerate(zip(widths[:3], (3, 7, 3), strict=True), 1):
            self.add_module(
                f"layer{number}", nn.Sequential(DownBlock(inputs, width), *(SplitBlock(width) for _ in range(count)))
            )
            inputs = width
        self.conv2 = conv(inputs, widths[3], 1)
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.linear = nn.Linear(widths[3], classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = F.relu(self.bn1(self.conv1(x_BCHW)))
        for number in (1, 2, 3):
            out = self.get_submodule(f"layer{number}")(out)
        out = F.relu(self.bn2(self.conv2(out)))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class BranchedBlock(nn.Module):
    """The blocks of ShuffleNetV2 under torchvision's names, `branch1` and `branch2`."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        taken = inputs if stride == 2 else half
        self.branch1 = (
            nn.Sequential(*normed(conv(inputs, inputs, 3, 2, inputs)), *normed(conv(inputs, half, 1), nn.ReLU()))
            if stride == 2
            else nn.Sequential()
        )
        self.branch2 = nn.Sequential(
            *normed(conv(taken, half, 1), nn.ReLU()),
            *normed(conv(half, half, 3, stride, half)),
            *normed(conv(half, half, 1), nn.ReLU()),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        first, second = (self.branch1(x_BCHW), x_BCHW) if self.stride == 2 else x_BCHW.chunk(2, 1)
        return shuffled(torch.cat([first, self.branch2(second)], 1), 2)


class BranchedShuffleNetV2(nn.Module):
    """ShuffleNetV2 under torchvision's names, with a stem of stride 1 and without the max pooling."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.conv1 = normed(conv(3, 24, 3), nn.ReLU())
        inputs = 24
        for number, (width, count) in enumerate(zip(widths[:3], (4, 8, 4), strict=True), 2):
            others = (BranchedBlock(width, width, 1) for _ in range(count - 1))
            self.add_module(f"stage{number}", nn.Sequential(BranchedBlock(inputs, width, 2), *others))
            inputs = width
        self.conv5 = normed(conv(inputs, widths[3], 1), nn.ReLU())
        self.fc = nn.Linear(widths[3], classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = self.conv1(x_BCHW)
        for number in (2, 3, 4):
            out = self.get_submodule(f"stage{number}")(out)
        logits: Tensor = self.fc(self.conv5(out).mean((2, 3)))
        return logits
