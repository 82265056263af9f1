"""Residual networks whose batch norms come before the convolutions (He et al., arXiv 1603.05027), and wide ones (1605.07146).

All take images (batch, channels, height, width) to logits (batch, classes).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nern.architectures.cifar.layers import conv
from nern.architectures.cifar.residual import STAGES


class PreActivatedBlock(nn.Module):
    """A block whose shortcut convolution takes the normalised input. With `squeeze`, it has a squeeze-excitation."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, bottleneck: bool, squeeze: bool) -> None:
        super().__init__()
        width = outputs // 4 if bottleneck else outputs
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, width, 1) if bottleneck else conv(inputs, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride if bottleneck else 1)
        self.bottleneck, self.squeeze = bottleneck, squeeze
        if bottleneck:
            self.bn3 = nn.BatchNorm2d(width)
            self.conv3 = conv(width, outputs, 1)
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride))
        if squeeze:
            self.fc1 = nn.Conv2d(outputs, outputs // 16, 1)
            self.fc2 = nn.Conv2d(outputs // 16, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = F.relu(self.bn1(x_BCHW))
        side: Tensor = self.shortcut(out) if hasattr(self, "shortcut") else x_BCHW
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        if self.bottleneck:
            out = self.conv3(F.relu(self.bn3(out)))
        if self.squeeze:
            out = out * self.fc2(F.relu(self.fc1(out.mean((2, 3), keepdim=True)))).sigmoid()
        total: Tensor = side + out
        return total


class PreActivatedResNet(nn.Module):
    """The pre-activation form of ResNet-18 to ResNet-152 with a 3x3 stem.

    stem_norm: a batch norm and a ReLU follow the stem. last_norm: a batch norm and a ReLU come before the pooling.
    squeeze: every block has a squeeze-excitation.
    """

    def __init__(
        self, depth: int, classes: int, *, stem_norm: bool = False, last_norm: bool = False, squeeze: bool = False
    ) -> None:
        super().__init__()
        stages, bottleneck = STAGES[depth]
        self.conv1 = conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64) if stem_norm else None
        inputs = 64
        for number, (blocks, width) in enumerate(zip(stages, (64, 128, 256, 512), strict=True), 1):
            outputs = 4 * width if bottleneck else width
            stage: list[nn.Module] = []
            for block in range(blocks):
                stride = 2 if number > 1 and not block else 1
                stage.append(PreActivatedBlock(inputs, outputs, stride=stride, bottleneck=bottleneck, squeeze=squeeze))
                inputs = outputs
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        self.bn = nn.BatchNorm2d(inputs) if last_norm else None
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = self.conv1(x_BCHW)
        out = F.relu(self.bn1(out)) if self.bn1 is not None else out
        for number in range(1, 5):
            out = self.get_submodule(f"layer{number}")(out)
        out = F.relu(self.bn(out)) if self.bn is not None else out
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


class NarrowBlock(nn.Module):
    """A block whose shortcut convolution takes the input as it is."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
        width = outputs // 4 if bottleneck else outputs
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, width, 1) if bottleneck else conv(inputs, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride if bottleneck else 1)
        self.bottleneck = bottleneck
        if bottleneck:
            self.bn3 = nn.BatchNorm2d(width)
            self.conv3 = conv(width, outputs, 1)
        changes = stride != 1 or inputs != outputs
        self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride)) if changes else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x_BCHW)))
        out = self.conv2(F.relu(self.bn2(out)))
        if self.bottleneck:
            out = self.conv3(F.relu(self.bn3(out)))
        total: Tensor = self.downsample(x_BCHW) + out
        return total


class NarrowPreActivatedResNet(nn.Module):
    """A pre-activation network of 6n + 2 layers, or of 9n + 2 with bottlenecks: three stages from 16 channels."""

    def __init__(self, depth: int, classes: int, *, bottleneck: bool = False) -> None:
        super().__init__()
        self.conv1 = conv(3, 16, 3)
        inputs = 16
        for number in (1, 2, 3):
            outputs = 2 ** (number + 3) * (4 if bottleneck else 1)
            stage: list[nn.Module] = []
            for block in range((depth - 2) // (9 if bottleneck else 6)):
                stride = 2 if number > 1 and not block else 1
                stage.append(NarrowBlock(inputs, outputs, stride=stride, bottleneck=bottleneck))
                inputs = outputs
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        self.bn = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = self.conv1(x_BCHW)
        for number in (1, 2, 3):
            out = self.get_submodule(f"layer{number}")(out)
        logits: Tensor = self.fc(F.relu(self.bn(out)).mean((2, 3)))
        return logits


class WideBlock(nn.Module):
    """A block of two 3x3 convolutions.

    A shortcut convolution, called `convShortcut`, takes the normalised input; without one, the shortcut is the input itself.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.convShortcut = conv(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        normal = F.relu(self.bn1(x_BCHW))
        side: Tensor = x_BCHW if self.convShortcut is None else self.convShortcut(normal)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(normal))))
        return out + side


class WideStage(nn.Module):
    """A sequence of blocks called `layer`."""

    def __init__(self, inputs: int, outputs: int, blocks: int, stride: int) -> None:
        super().__init__()
        others = (WideBlock(outputs, outputs, 1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(WideBlock(inputs, outputs, stride), *others)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = self.layer(x_BCHW)
        return out


class WideResNet(nn.Module):
    """A wide residual network of 6n + 4 layers, with stages `block1` to `block3` and the head `fc`."""

    def __init__(self, depth: int, width: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = conv(3, 16, 3)
        self.block1 = WideStage(16, 16 * width, blocks, 1)
        self.block2 = WideStage(16 * width, 32 * width, blocks, 2)
        self.block3 = WideStage(32 * width, 64 * width, blocks, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = self.block3(self.block2(self.block1(self.conv1(x_BCHW))))
        logits: Tensor = self.fc(F.relu(self.bn1(out)).mean((2, 3)))
        return logits


class BiasedWideBlock(nn.Module):
    """A block whose convolutions have biases. The second convolution has the stride; the shortcut takes the input as it is."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, outputs, 3, bias=True)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3, stride, bias=True)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride, bias=True)) if changes else nn.Sequential()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x_BCHW)))
        side: Tensor = self.shortcut(x_BCHW)
        return self.conv2(F.relu(self.bn2(out))) + side  # type: ignore[no-any-return]  # nn.Module calls are untyped


class BiasedWideResNet(nn.Module):
    """A wide residual network whose convolutions have biases, with stages `layer1` to `layer3` and the head `linear`."""

    def __init__(self, depth: int, width: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = conv(3, 16, 3, bias=True)
        inputs = 16
        for number in (1, 2, 3):
            outputs = 2 ** (number + 3) * width
            strides = [1 if number == 1 else 2] + [1] * (blocks - 1)
            stage: list[nn.Module] = []
            for stride in strides:
                stage.append(BiasedWideBlock(inputs, outputs, stride))
                inputs = outputs
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        self.bn1 = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The logits, (batch, classes), of images (batch, channels, height, width)."""
        out = self.conv1(x_BCHW)
        for number in (1, 2, 3):
            out = self.get_submodule(f"layer{number}")(out)
        logits: Tensor = self.linear(F.relu(self.bn1(out)).mean((2, 3)))
        return logits
