"""Residual networks for CIFAR (He et al., arXiv 1512.03385), under the names that public implementations give to their layers.

`ResNet` is the network of section 4.2 of the paper: depth 6n + 2, three stages of n basic blocks, 16 to 64 channels.
`WideStem` is the network for ImageNet with a 3x3 stem: four stages, 64 to 512 channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nern.architectures.cifar.layers import conv, normed

DEPTHS = (8, 14, 20, 32, 44, 56, 110)

# The blocks of each stage of the networks for ImageNet, and whether they are bottlenecks.
STAGES = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}

Shortcut = Literal["A", "B"]


@dataclass(frozen=True)
class Layout:
    """The names of the shortcut of a block and of the last layer."""

    shortcut: str = "shortcut"
    head: str = "linear"


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


class Block(nn.Module):
    """A residual block of two or three convolutions: (B, inputs, H, W) to (B, outputs, H/stride, W/stride), rounded up.

    A bottleneck has 1x1, 3x3 and 1x1 convolutions, the first two with a quarter of the channels.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        shortcut: Shortcut = "B",
        layout: Layout,
        bottleneck: bool = False,
    ) -> None:
        super().__init__()
        if bottleneck:
            self.conv1 = conv(inputs, outputs // 4, 1)
            self.bn1 = nn.BatchNorm2d(outputs // 4)
            self.conv2 = conv(outputs // 4, outputs // 4, 3, stride)
            self.bn2 = nn.BatchNorm2d(outputs // 4)
            self.conv3 = conv(outputs // 4, outputs, 1)
            self.bn3 = nn.BatchNorm2d(outputs)
        else:
            self.conv1 = conv(inputs, outputs, 3, stride)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = conv(outputs, outputs, 3)
            self.bn2 = nn.BatchNorm2d(outputs)
        # The input of this module is the sum of the block, a feature map (nern/training/maps.py).
        self.relu = nn.ReLU()
        self.bottleneck = bottleneck
        self.shortcut_name = layout.shortcut
        side: nn.Module = nn.Sequential()
        if stride != 1 or inputs != outputs:
            side = PadShortcut(outputs - inputs) if shortcut == "A" else normed(conv(inputs, outputs, 1, stride))
        self.add_module(layout.shortcut, side)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x_BCHW)))))
        if self.bottleneck:
            out = self.bn3(self.conv3(F.relu(out)))
        result: Tensor = self.relu(out + self.get_submodule(self.shortcut_name)(x_BCHW))
        return result


class ResNet(nn.Module):
    """A residual network of 6n + 2 layers, or 9n + 2 with bottlenecks: images (batch, channels, height, width) to logits.

    The logits are (batch, classes). Raises ValueError for a depth that is not in DEPTHS. With bottlenecks, the depth is 164.
    """

    def __init__(
        self,
        depth: int,
        *,
        classes: int = 10,
        channels: int = 3,
        shortcut: Shortcut = "A",
        layout: Layout = Layout(),
        bottleneck: bool = False,
    ) -> None:
        super().__init__()
        if depth not in (*DEPTHS, 164):
            raise ValueError(f"depth {depth} is not one of {DEPTHS}")
        blocks = (depth - 2) // (9 if bottleneck else 6)
        wider = 4 if bottleneck else 1
        self.conv1 = conv(channels, 16, 3)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16 * wider, blocks, 1, shortcut, layout, bottleneck)
        self.layer2 = _stage(16 * wider, 32 * wider, blocks, 2, shortcut, layout, bottleneck)
        self.layer3 = _stage(32 * wider, 64 * wider, blocks, 2, shortcut, layout, bottleneck)
        self.head_name = layout.head
        self.add_module(layout.head, nn.Linear(64 * wider, classes))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = F.relu(self.bn1(self.conv1(x_BCHW)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.get_submodule(self.head_name)(out.mean((2, 3)))
        return logits


class WideStem(nn.Module):
    """ResNet-18 to ResNet-152 with a 3x3 stem of stride 1. With `pooled`, a max pooling of stride 2 follows the stem."""

    def __init__(self, depth: int, classes: int, *, layout: Layout, pooled: bool = False) -> None:
        super().__init__()
        stages, bottleneck = STAGES[depth]
        self.conv1 = conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.pooled = pooled
        inputs = 64
        for number, (blocks, width) in enumerate(zip(stages, (64, 128, 256, 512), strict=True), 1):
            outputs = 4 * width if bottleneck else width
            stage = _stage(inputs, outputs, blocks, 1 if number == 1 else 2, "B", layout, bottleneck)
            self.add_module(f"layer{number}", stage)
            inputs = outputs
        self.head_name = layout.head
        self.add_module(layout.head, nn.Linear(inputs, classes))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = F.relu(self.bn1(self.conv1(x_BCHW)))
        if self.pooled:
            out = F.max_pool2d(out, 3, 2, 1)
        for number in range(1, 5):
            out = self.get_submodule(f"layer{number}")(out)
        logits: Tensor = self.get_submodule(self.head_name)(out.mean((2, 3)))
        return logits


class SequentialBlock(nn.Module):
    """A residual block whose convolutions and batch norms are one `nn.Sequential`."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
        width = outputs // 4
        kinds = (
            [conv(inputs, width, 1), conv(width, width, 3, stride), conv(width, outputs, 1)]
            if bottleneck
            else [conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3)]
        )
        layers = [layer for one in kinds for layer in (one, nn.BatchNorm2d(one.out_channels), nn.ReLU())]
        self.residual_function = nn.Sequential(*layers[:-1])
        self.shortcut = normed(conv(inputs, outputs, 1, stride)) if stride != 1 or inputs != outputs else nn.Sequential()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(self.residual_function(x_BCHW) + self.shortcut(x_BCHW))


class SequentialResNet(nn.Module):
    """The network of `WideStem` with stages called `conv2_x` to `conv5_x`, as in table 1 of the paper."""

    def __init__(self, depth: int, classes: int) -> None:
        super().__init__()
        stages, bottleneck = STAGES[depth]
        self.conv1 = normed(conv(3, 64, 3), nn.ReLU())
        inputs = 64
        for number, (blocks, width) in enumerate(zip(stages, (64, 128, 256, 512), strict=True), 2):
            outputs = 4 * width if bottleneck else width
            strides = [1 if number == 2 else 2] + [1] * (blocks - 1)
            stage = []
            for stride in strides:
                stage.append(SequentialBlock(inputs, outputs, stride=stride, bottleneck=bottleneck))
                inputs = outputs
            self.add_module(f"conv{number}_x", nn.Sequential(*stage))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = self.conv1(x_BCHW)
        for number in range(2, 6):
            out = self.get_submodule(f"conv{number}_x")(out)
        logits: Tensor = self.fc(out.mean((2, 3)))
        return logits


class ResNeXt(nn.Module):
    """ResNeXt-29 (Xie et al., arXiv 1611.05431) with a 1x1 stem and three stages of three blocks."""

    def __init__(self, cardinality: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 64, 1)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for number in (1, 2, 3):
            inner = cardinality * width * 2 ** (number - 1)
            strides = (1 if number == 1 else 2, 1, 1)
            blocks: list[nn.Module] = []
            for stride in strides:
                blocks.append(GroupedBlock(inputs, inner, 2 * inner, stride=stride, groups=cardinality))
                inputs = 2 * inner
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = F.relu(self.bn1(self.conv1(x_BCHW)))
        for number in (1, 2, 3):
            out = self.get_submodule(f"layer{number}")(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class RegNet(nn.Module):
    """A RegNet (Radosavovic et al., arXiv 2003.13678) with a 3x3 stem of 64 channels; `squeezed` adds squeeze-excitation."""

    def __init__(
        self, depths: Sequence[int], widths: Sequence[int], group_width: int, classes: int, *, squeezed: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for number, (depth, width, stride) in enumerate(zip(depths, widths, (1, 1, 2, 2), strict=True), 1):
            blocks: list[nn.Module] = []
            for block in range(depth):
                groups = width // group_width
                blocks.append(
                    GroupedBlock(
                        inputs, width, width, stride=1 if block else stride, groups=groups, squeeze=inputs // 4 * squeezed
                    )
                )
                inputs = width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = F.relu(self.bn1(self.conv1(x_BCHW)))
        for number in range(1, 5):
            out = self.get_submodule(f"layer{number}")(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class GroupedBlock(nn.Module):
    """A bottleneck whose 3x3 convolution has groups. With `squeeze` channels, a squeeze-excitation follows that convolution."""

    def __init__(self, inputs: int, inner: int, outputs: int, *, stride: int, groups: int, squeeze: int = 0) -> None:
        super().__init__()
        self.conv1 = conv(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride, groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.se = SqueezeExcitation(inner, squeeze) if squeeze else nn.Identity()
        self.conv3 = conv(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = normed(conv(inputs, outputs, 1, stride)) if stride != 1 or inputs != outputs else nn.Sequential()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x_BCHW)))
        out = self.se(F.relu(self.bn2(self.conv2(out))))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x_BCHW))


class SqueezeExcitation(nn.Module):
    """Channels weighted by a function of the means of all channels (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.se1 = nn.Conv2d(channels, inner, 1)
        self.se2 = nn.Conv2d(inner, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weights: Tensor = self.se2(F.relu(self.se1(x_BCHW.mean((2, 3), keepdim=True)))).sigmoid()
        return x_BCHW * weights


def _stage(
    inputs: int, outputs: int, blocks: int, stride: int, shortcut: Shortcut, layout: Layout, bottleneck: bool
) -> nn.Sequential:
    first = Block(inputs, outputs, stride=stride, shortcut=shortcut, layout=layout, bottleneck=bottleneck)
    others = (Block(outputs, outputs, stride=1, layout=layout, bottleneck=bottleneck) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)
