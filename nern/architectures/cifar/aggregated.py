"""Networks for CIFAR that concatenate feature maps: DenseNet, dual path networks, deep layer aggregation and PNASNet.

All take images (batch, channels, height, width) to logits (batch, classes).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nern.architectures.cifar.layers import conv, normed
from nern.architectures.cifar.residual import Block, Layout


class DenseLayer(nn.Module):
    """A 1x1 and a 3x3 convolution, whose output comes before the input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, 4 * growth, 1)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = conv(4 * growth, growth, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x_BCHW))))))
        return torch.cat([out, x_BCHW], 1)


class Transition(nn.Module):
    """A 1x1 convolution and a mean pooling."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.conv = conv(inputs, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x_BCHW))), 2)


class DenseNet(nn.Module):
    """DenseNet-BC (Huang et al., arXiv 1608.06993) with four dense blocks and a 3x3 stem."""

    def __init__(self, blocks: Sequence[int], growth: int, classes: int) -> None:
        super().__init__()
        width = 2 * growth
        self.conv1 = conv(3, width, 3)
        for number, count in enumerate(blocks, 1):
            layers = [DenseLayer(width + layer * growth, growth) for layer in range(count)]
            self.add_module(f"dense{number}", nn.Sequential(*layers))
            width += count * growth
            if number < 4:
                self.add_module(f"trans{number}", Transition(width, width // 2))
                width //= 2
        self.bn = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = self.conv1(x_BCHW)
        for number in (1, 2, 3):
            out = self.get_submodule(f"trans{number}")(self.get_submodule(f"dense{number}")(out))
        out = F.relu(self.bn(self.get_submodule("dense4")(out)))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class DualPathBlock(nn.Module):
    """A bottleneck: its first `width` output channels are added to the input's, the others are concatenated."""

    def __init__(self, inputs: int, inner: int, width: int, growth: int, *, stride: int, first: bool) -> None:
        super().__init__()
        self.width = width
        self.conv1 = conv(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride, 32)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, width + growth, 1)
        self.bn3 = nn.BatchNorm2d(width + growth)
        self.shortcut = normed(conv(inputs, width + growth, 1, stride)) if first else nn.Sequential()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x_BCHW))))))
        out = self.bn3(self.conv3(out))
        side: Tensor = self.shortcut(x_BCHW)
        added = side[:, : self.width] + out[:, : self.width]
        return F.relu(torch.cat([added, side[:, self.width :], out[:, self.width :]], 1))


class DualPathNet(nn.Module):
    """A dual path network (Chen et al., arXiv 1707.01629) with a 3x3 stem."""

    def __init__(self, blocks: Sequence[int], classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        stages = zip(blocks, (96, 192, 384, 768), (256, 512, 1024, 2048), (16, 32, 24, 128), strict=True)
        for number, (count, inner, width, growth) in enumerate(stages, 1):
            stage: list[nn.Module] = []
            for block in range(count):
                stride = 2 if number > 1 and not block else 1
                stage.append(DualPathBlock(inputs, inner, width, growth, stride=stride, first=not block))
                inputs = width + (block + 2) * growth
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = F.relu(self.bn1(self.conv1(x_BCHW)))
        for number in range(1, 5):
            out = self.get_submodule(f"layer{number}")(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class Root(nn.Module):
    """A 1x1 convolution of concatenated feature maps."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs, 1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return F.relu(self.bn(self.conv(torch.cat(list(maps), 1))))


class Tree(nn.Module):
    """A tree of residual blocks; the root aggregates the outputs of all of its subtrees. `level` is 1 or 2."""

    def __init__(self, inputs: int, outputs: int, level: int, stride: int) -> None:
        super().__init__()
        self.level = level
        self.root = Root((level + 2 if level > 1 else 2) * outputs, outputs)
        if level > 1:
            self.level_1 = Tree(inputs, outputs, 1, stride)
            self.prev_root = Block(inputs, outputs, stride=stride, layout=Layout())
        self.left_node = Block(outputs if level > 1 else inputs, outputs, stride=1 if level > 1 else stride, layout=Layout())
        self.right_node = Block(outputs, outputs, stride=1, layout=Layout())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps: list[Tensor] = []
        if self.level > 1:
            maps.append(self.prev_root(x_BCHW))
            x_BCHW = self.level_1(x_BCHW)
            maps.append(x_BCHW)
        left = self.left_node(x_BCHW)
        aggregated: Tensor = self.root([*maps, left, self.right_node(left)])
        return aggregated


class PlainTree(nn.Module):
    """A binary tree of residual blocks; the root aggregates the outputs of both subtrees."""

    def __init__(self, inputs: int, outputs: int, level: int, stride: int) -> None:
        super().__init__()
        self.root = Root(2 * outputs, outputs)
        if level == 1:
            self.left_tree: nn.Module = Block(inputs, outputs, stride=stride, layout=Layout())
            self.right_tree: nn.Module = Block(outputs, outputs, stride=1, layout=Layout())
        else:
            self.left_tree = PlainTree(inputs, outputs, level - 1, stride)
            self.right_tree = PlainTree(outputs, outputs, level - 1, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        left = self.left_tree(x_BCHW)
        aggregated: Tensor = self.root([left, self.right_tree(left)])
        return aggregated


class LayerAggregation(nn.Module):
    """Deep layer aggregation (Yu et al., arXiv 1707.06484) with trees of one kind."""

    def __init__(self, classes: int, *, tree: type[Tree] | type[PlainTree]) -> None:
        super().__init__()
        self.base = normed(conv(3, 16, 3), nn.ReLU())
        self.layer1 = normed(conv(16, 16, 3), nn.ReLU())
        self.layer2 = normed(conv(16, 32, 3), nn.ReLU())
        self.layer3 = tree(32, 64, 1, 1)
        self.layer4 = tree(64, 128, 2, 2)
        self.layer5 = tree(128, 256, 2, 2)
        self.layer6 = tree(256, 512, 1, 2)
        self.linear = nn.Linear(512, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = self.base(x_BCHW)
        for number in range(1, 7):
            out = self.get_submodule(f"layer{number}")(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class GroupedConv(nn.Module):
    """A convolution with one group for each input channel, and a batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, kernel, stride, inputs)
        self.bn1 = nn.BatchNorm2d(outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = self.bn1(self.conv1(x_BCHW))
        return out


class Cell(nn.Module):
    """A cell of PNASNet. A small one adds two branches; a large one has four, added in pairs and concatenated."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, large: bool) -> None:
        super().__init__()
        self.stride, self.large = stride, large
        self.sep_conv1 = GroupedConv(inputs, outputs, 7, stride)
        if large:
            self.sep_conv2 = GroupedConv(inputs, outputs, 3, stride)
            self.sep_conv3 = GroupedConv(inputs, outputs, 5, stride)
        if stride == 2:
            self.conv1 = conv(inputs, outputs, 1)
            self.bn1 = nn.BatchNorm2d(outputs)
        if large:
            self.conv2 = conv(2 * outputs, outputs, 1)
            self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        pooled = F.max_pool2d(x_BCHW, 3, self.stride, 1)
        if self.stride == 2:
            pooled = self.bn1(self.conv1(pooled))
        first: Tensor = self.sep_conv1(x_BCHW)
        if not self.large:
            return F.relu(first + pooled)
        pairs = [F.relu(first + self.sep_conv2(x_BCHW)), F.relu(pooled + self.sep_conv3(x_BCHW))]
        return F.relu(self.bn2(self.conv2(torch.cat(pairs, 1))))


class PNASNet(nn.Module):
    """A progressive neural architecture (Liu et al., arXiv 1712.00559): three stages of six cells."""

    def __init__(self, width: int, classes: int, *, large: bool) -> None:
        super().__init__()
        self.conv1 = conv(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        for number, scale in ((1, 1), (3, 2), (5, 4)):
            if number > 1:
                self.add_module(f"layer{number - 1}", Cell(scale // 2 * width, scale * width, 2, large=large))
            cells = (Cell(scale * width, scale * width, 1, large=large) for _ in range(6))
            self.add_module(f"layer{number}", nn.Sequential(*cells))
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = F.relu(self.bn1(self.conv1(x_BCHW)))
        for number in range(1, 6):
            out = self.get_submodule(f"layer{number}")(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits
