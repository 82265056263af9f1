"""The networks: more than forty, of more than a dozen kinds. Each is small enough to be trained in about a minute."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.zoo import tasks
from bench.zoo.tasks import CLASSES, Task


def norm(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def head(channels: int, classes: int = CLASSES) -> nn.Sequential:
    """Global average pooling and a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def tutorial() -> nn.Module:
    """The network of the PyTorch tutorial on CIFAR-10."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def lenet() -> nn.Module:
    """LeNet-5 with tanh and average pooling (LeCun et al., 1998), for 16 x 16 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(16, 120, 4), nn.Tanh(), nn.Flatten(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


def vgg(*, norms: bool) -> nn.Module:
    """Three stages of two 3 x 3 convolutions."""
    layers: list[nn.Module] = []
    channels = 1
    for width in (16, 32, 64):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1)]
            layers += [nn.BatchNorm2d(width)] if norms else []
            layers += [nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))


def all_convolutional() -> nn.Module:
    """No pooling and no linear layer (Springenberg et al., 2014)."""
    return nn.Sequential(norm(1, 24), norm(24, 24, stride=2), norm(24, 48), norm(48, 48, stride=2), nn.Conv2d(48, 10, 1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten())  # fmt: skip


class Residual(nn.Module):
    """Adds the input to the output of `body`."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut or nn.Identity(), after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.after(self.shortcut(x) + self.body(x))
        return y


def basic(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """A basic residual block (He et al., 2015)."""
    body = nn.Sequential(norm(inputs, outputs, stride=stride), *norm(outputs, outputs)[:2])
    same = stride == 1 and inputs == outputs
    shortcut = None if same else nn.Sequential(*norm(inputs, outputs, 1, stride)[:2])
    return Residual(body, shortcut, nn.ReLU())


def resnet(widths: tuple[int, ...] = (16, 32, 64)) -> nn.Module:
    """A residual network of one block a stage."""
    blocks = [basic(a, b, 1 if a == b else 2) for a, b in zip((widths[0], *widths), widths, strict=False)]
    return nn.Sequential(norm(1, widths[0]), *blocks, head(widths[-1]))


def wide() -> nn.Module:
    """A wide residual network with pre-activation (Zagoruyko and Komodakis, 2016)."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        body = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )  # fmt: skip
        return Residual(body, nn.Conv2d(inputs, outputs, 1, stride, bias=False))

    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), block(16, 32, 1), block(32, 64, 2), nn.BatchNorm2d(64), nn.ReLU(),
                         head(64))  # fmt: skip


def bottleneck(groups: int = 1) -> nn.Module:
    """Bottleneck blocks (ResNet-50); with groups, those of ResNeXt."""

    def block(width: int, inner: int) -> nn.Module:
        body = nn.Sequential(norm(width, inner, 1), norm(inner, inner, groups=groups), *norm(inner, width, 1)[:2])
        return Residual(body, after=nn.ReLU())

    return nn.Sequential(norm(1, 32), block(32, 16), nn.MaxPool2d(2), norm(32, 64, 1), block(64, 32), block(64, 32), head(64))


class Parallel(nn.Module):
    """The outputs of several branches, concatenated along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def inception() -> nn.Module:
    """Parallel convolutions of several sizes (Szegedy et al., 2014)."""

    def block(inputs: int, width: int) -> nn.Module:
        pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), norm(inputs, width, 1))
        return Parallel(norm(inputs, width, 1), norm(inputs, width), norm(inputs, width, 5), pooled)

    return nn.Sequential(norm(1, 16), block(16, 12), nn.MaxPool2d(2), block(48, 16), head(64))


def densenet() -> nn.Module:
    """Every layer takes the outputs of all layers before it (Huang et al., 2016)."""

    def grow(inputs: int, layers: int) -> list[nn.Module]:
        return [Parallel(nn.Identity(), norm(inputs + 12 * number, 12)) for number in range(layers)]

    return nn.Sequential(norm(1, 16), *grow(16, 4), norm(64, 32, 1), nn.AvgPool2d(2), *grow(32, 4), head(80))


def squeezenet() -> nn.Module:
    """Fire modules (Iandola et al., 2016)."""

    def fire(inputs: int, squeezed: int, width: int) -> nn.Module:
        return nn.Sequential(norm(inputs, squeezed, 1), Parallel(norm(squeezed, width, 1), norm(squeezed, width)))

    return nn.Sequential(norm(1, 32), nn.MaxPool2d(2), fire(32, 8, 24), fire(48, 12, 32), nn.Conv2d(64, 10, 1),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten())  # fmt: skip


def mobilenet() -> nn.Module:
    """Depthwise separable convolutions (Howard et al., 2017)."""

    def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(norm(inputs, inputs, stride=stride, groups=inputs), norm(inputs, outputs, 1))

    return nn.Sequential(norm(1, 32), separable(32, 64, 1), separable(64, 96, 2), separable(96, 96, 1), separable(96, 128, 2),
                         head(128))  # fmt: skip


class Excite(nn.Module):
    """Squeeze and excitation (Hu et al., 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels // 4, 1), nn.SiLU(), nn.Conv2d(channels // 4, channels, 1),
            nn.Hardsigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.scale(x)
        return y


def mobilenet_v3() -> nn.Module:
    """Inverted residuals with squeeze and excitation (Howard et al., 2019)."""

    def inverted(width: int, inner: int, size: int) -> nn.Module:
        body = nn.Sequential(
            *norm(width, inner, 1)[:2], nn.Hardswish(), *norm(inner, inner, size, groups=inner)[:2], Excite(inner),
            nn.Hardswish(), *norm(inner, width, 1)[:2],
        )  # fmt: skip
        return Residual(body)

    return nn.Sequential(norm(1, 24), inverted(24, 72, 3), nn.MaxPool2d(2), norm(24, 40, 1), inverted(40, 120, 5), head(40))


class Shuffle(nn.Module):
    """Deals the channels of several groups out in turn (Zhang et al., 2017)."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        return x.view(batch, 4, channels // 4, height, width).transpose(1, 2).reshape(batch, channels, height, width)


def shufflenet() -> nn.Module:
    """Grouped convolutions with shuffled channels."""

    def block(width: int) -> nn.Module:
        body = nn.Sequential(
            norm(width, width, 1, groups=4), Shuffle(), *norm(width, width, groups=width)[:2],
            *norm(width, width, 1, groups=4)[:2],
        )  # fmt: skip
        return Residual(body, after=nn.ReLU())

    return nn.Sequential(norm(1, 64), block(64), nn.MaxPool2d(2), norm(64, 96, 1), block(96), block(96), head(96))


class ChannelNorm(nn.Module):
    """A layer norm over the channels of images."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return y


def convnext() -> nn.Module:
    """Large depthwise kernels and layer norms (Liu et al., 2022)."""

    def block(width: int) -> nn.Module:
        return Residual(
            nn.Sequential(
                nn.Conv2d(width, width, 7, padding=3, groups=width), ChannelNorm(width), nn.Conv2d(width, 3 * width, 1),
                nn.GELU(), nn.Conv2d(3 * width, width, 1),
            )
        )  # fmt: skip

    return nn.Sequential(nn.Conv2d(1, 48, 2, 2), ChannelNorm(48), block(48), block(48), block(48), head(48))


def convmixer() -> nn.Module:
    """Patches, depthwise and pointwise convolutions (Trockman and Kolter, 2022)."""

    def block(width: int) -> nn.Module:
        def pointed(*layers: nn.Module) -> nn.Sequential:
            return nn.Sequential(*layers, nn.GELU(), nn.BatchNorm2d(width))

        depthwise = Residual(pointed(nn.Conv2d(width, width, 5, padding=2, groups=width)))
        return nn.Sequential(depthwise, pointed(nn.Conv2d(width, width, 1)))

    return nn.Sequential(nn.Conv2d(1, 64, 2, 2), nn.GELU(), nn.BatchNorm2d(64), block(64), block(64), block(64), head(64))


class Attention(nn.Module):
    """Self-attention of tokens (N, tokens, width)."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width))
        return y


def encoder(width: int, layers: int) -> nn.Sequential:
    """A transformer encoder with norms before attention and MLP."""
    blocks: list[nn.Module] = []
    for _ in range(layers):
        mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        blocks += [Residual(nn.Sequential(nn.LayerNorm(width), Attention(width))), Residual(mlp)]
    return nn.Sequential(*blocks)


class VisionTransformer(nn.Module):
    """Patches as tokens, with a convolutional stem or a plain one (Dosovitskiy et al., 2020; Xiao et al., 2021)."""

    def __init__(self, *, convolutions: bool) -> None:
        super().__init__()
        plain: nn.Module = nn.Conv2d(1, 64, 4, 4)
        self.stem = nn.Sequential(norm(1, 32, stride=2), norm(32, 64, stride=2)) if convolutions else plain
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, 64))
        self.encoder = encoder(64, 3)
        self.head = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.position
        y: Tensor = self.head(self.encoder(tokens).mean(1))
        return y


class Mixer(nn.Module):
    """MLPs across patches and across channels (Tolstikhin et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 64, 4, 4)
        self.tokens = nn.ModuleList(nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(3))
        self.channels = nn.ModuleList(nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64)) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(64) for _ in range(7))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x).flatten(2).transpose(1, 2)
        for number, (tokens, channels) in enumerate(zip(self.tokens, self.channels, strict=True)):
            y = y + tokens(self.norms[2 * number](y).transpose(1, 2)).transpose(1, 2)
            y = y + channels(self.norms[2 * number + 1](y))
        result: Tensor = self.head(self.norms[6](y).mean(1))
        return result


class UNet(nn.Module):
    """An encoder and a decoder with skip connections (Ronneberger et al., 2015)."""

    def __init__(self, inputs: int, outputs: int, *, transposed: bool) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = norm(inputs, 16), norm(16, 32), norm(32, 64)
        self.up2, self.up1 = self._up(64, 32, transposed), self._up(32, 16, transposed)
        self.merge2, self.merge1, self.out = norm(64, 32), norm(32, 16), nn.Conv2d(16, outputs, 1)

    @staticmethod
    def _up(inputs: int, outputs: int, transposed: bool) -> nn.Module:
        if transposed:
            return nn.ConvTranspose2d(inputs, outputs, 2, 2)
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        y = self.middle(F.max_pool2d(second, 2))
        y = self.merge2(torch.cat([self.up2(y), second], 1))
        result: Tensor = self.out(self.merge1(torch.cat([self.up1(y), first], 1)))
        return result


def dilated() -> nn.Module:
    """A segmenter of dilated convolutions at full resolution (Yu and Koltun, 2015)."""
    layers: list[nn.Module] = [norm(1, 24)]
    for dilation in (1, 2, 4, 8, 1):
        layers += [nn.Conv2d(24, 24, 3, padding=dilation, dilation=dilation), nn.BatchNorm2d(24), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(24, CLASSES + 1, 1))


def fully_convolutional() -> nn.Module:
    """A segmenter whose map is enlarged at the end (Long et al., 2014)."""
    return nn.Sequential(norm(1, 24), norm(24, 48, stride=2), norm(48, 48), norm(48, 48), nn.Conv2d(48, CLASSES + 1, 1),
                         nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))  # fmt: skip


def dncnn(*, norms: bool = True) -> nn.Module:
    """A denoiser that predicts the noise (Zhang et al., 2016)."""

    class Subtract(nn.Module):
        def __init__(self, noise: nn.Module) -> None:
            super().__init__()
            self.noise = noise

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = x - self.noise(x)
            return y

    inner: list[nn.Module] = []
    for _ in range(4):
        inner += [*norm(32, 32)] if norms else [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return Subtract(nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), *inner, nn.Conv2d(32, 3, 3, padding=1)))


def srcnn() -> nn.Module:
    """Super-resolution of an enlarged image (Dong et al., 2014)."""
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(3, 32, 9, padding=4), nn.ReLU(),
                         nn.Conv2d(32, 16, 1), nn.ReLU(), nn.Conv2d(16, 3, 5, padding=2))  # fmt: skip


def espcn() -> nn.Module:
    """Super-resolution by sub-pixel convolution (Shi et al., 2016)."""
    return nn.Sequential(nn.Conv2d(3, 48, 5, padding=2), nn.Tanh(), nn.Conv2d(48, 32, 3, padding=1), nn.Tanh(),
                         nn.Conv2d(32, 12, 3, padding=1), nn.PixelShuffle(2))  # fmt: skip


class Edsr(nn.Module):
    """Super-resolution with residual blocks and no norms (Lim et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [
            Residual(nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1)))
            for _ in range(4)
        ]
        self.first, self.body = nn.Conv2d(3, 24, 3, padding=1), nn.Sequential(*blocks)
        self.last = nn.Sequential(nn.Conv2d(24, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        enlarged = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        y: Tensor = enlarged + self.last(self.body(self.first(x)))
        return y


def autoencoder() -> nn.Module:
    """An image through a code of 8 x 4 x 4 numbers."""
    return nn.Sequential(norm(1, 32, stride=2), norm(32, 32, stride=2), nn.Conv2d(32, 8, 3, padding=1),
                         nn.ConvTranspose2d(8, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(),
                         nn.Conv2d(16, 1, 3, padding=1))  # fmt: skip


def generator() -> nn.Module:
    """The generator of a DCGAN (Radford et al., 2015): from numbers to an image."""
    return nn.Sequential(nn.Unflatten(1, (18, 1, 1)), nn.ConvTranspose2d(18, 64, 4), nn.BatchNorm2d(64), nn.ReLU(),
                         nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
                         nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
                         nn.Conv2d(16, 1, 3, padding=1))  # fmt: skip


def detector() -> nn.Module:
    """One class for every cell of a coarse map, as in detectors of one stage."""
    return nn.Sequential(norm(1, 24), norm(24, 48, stride=2), norm(48, 48), norm(48, 64, stride=2), norm(64, 64),
                         nn.Conv2d(64, CLASSES + 1, 1))  # fmt: skip


class Pyramid(nn.Module):
    """A detector with a feature pyramid (Lin et al., 2017). The second output is a coarser map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fine, self.coarse = norm(1, 24, stride=2), norm(24, 48, stride=2), norm(48, 64, stride=2)
        self.side, self.down = nn.Conv2d(48, 48, 1), nn.Conv2d(64, 48, 1)
        self.head = nn.Sequential(norm(48, 48), nn.Conv2d(48, CLASSES + 1, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(self.stem(x))
        coarse = self.down(self.coarse(fine))
        merged = self.side(fine) + F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return self.head(merged), self.head(coarse)


def m5() -> nn.Module:
    """A network for raw audio with a long first kernel (Dai et al., 2016)."""
    return nn.Sequential(nn.Conv1d(1, 32, 80, 4), nn.BatchNorm1d(32), nn.ReLU(), nn.MaxPool1d(4), nn.Conv1d(32, 32, 3),
                         nn.BatchNorm1d(32), nn.ReLU(), nn.MaxPool1d(4), nn.Conv1d(32, 64, 3), nn.BatchNorm1d(64), nn.ReLU(),
                         nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 8))  # fmt: skip


def temporal() -> nn.Module:
    """Dilated causal convolutions with residuals (Bai et al., 2018)."""

    def block(dilation: int) -> nn.Module:
        padded = nn.ConstantPad1d((2 * dilation, 0), 0.0)
        return Residual(nn.Sequential(padded, nn.Conv1d(24, 24, 3, dilation=dilation), nn.BatchNorm1d(24), nn.ReLU()))

    return nn.Sequential(nn.Conv1d(1, 24, 9, 4, 4), *(block(2**number) for number in range(6)), nn.AdaptiveAvgPool1d(1),
                         nn.Flatten(), nn.Linear(24, 8))  # fmt: skip


class WaveNet(nn.Module):
    """Gated dilated convolutions with skip connections (van den Oord et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 24, 8, 4)
        self.gates = nn.ModuleList(nn.Conv1d(24, 48, 2, dilation=2**number) for number in range(5))
        self.skips = nn.ModuleList(nn.Conv1d(24, 24, 1) for _ in range(5))
        self.last = nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        y, total = self.first(x), torch.zeros(())
        for gate, skip in zip(self.gates, self.skips, strict=True):
            signal, opened = gate(y).chunk(2, 1)
            gated = signal.tanh() * opened.sigmoid()
            total = total + skip(gated).mean(2)
            y = y[:, :, -gated.shape[2] :] + gated
        result: Tensor = self.last(total.relu())
        return result


class Recurrent(nn.Module):
    """Convolutions over the rows of an image, then a recurrent layer (Shi et al., 2015)."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM], *, both: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(16, 48, 3, padding=1), nn.BatchNorm1d(48), nn.ReLU(),
                                  nn.Conv1d(48, 48, 3, padding=1), nn.BatchNorm1d(48), nn.ReLU())  # fmt: skip
        self.recurrent = kind(48, 32, batch_first=True, bidirectional=both)
        self.head = nn.Linear(64 if both else 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.recurrent(self.conv(x).transpose(1, 2))
        y: Tensor = self.head(states[:, -1])
        return y


def volumetric() -> nn.Module:
    """3-D convolutions over frames (Tran et al., 2015)."""

    def conv(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv3d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU())

    return nn.Sequential(conv(1, 12), nn.MaxPool3d(2), conv(12, 24), nn.MaxPool3d(2), conv(24, 32), nn.AdaptiveAvgPool3d(1),
                         nn.Flatten(), nn.Linear(32, 8))  # fmt: skip


def factorised() -> nn.Module:
    """(2+1)-D convolutions: within frames, then across them (Tran et al., 2017)."""

    def conv(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv3d(inputs, outputs, (1, 3, 3), padding=(0, 1, 1), bias=False), nn.BatchNorm3d(outputs),
                             nn.ReLU(), nn.Conv3d(outputs, outputs, (3, 1, 1), padding=(1, 0, 0), bias=False),
                             nn.BatchNorm3d(outputs), nn.ReLU())  # fmt: skip

    return nn.Sequential(conv(1, 16), nn.MaxPool3d((1, 2, 2)), conv(16, 32), nn.MaxPool3d(2), conv(32, 32),
                         nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 8))  # fmt: skip


class TwoInputs(nn.Module):
    """One trunk for two inputs, with the same weights (Bromley et al., 1993)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(norm(1, 24), norm(24, 48, stride=2), nn.AdaptiveAvgPool2d((2, 4)), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(768, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, upper: Tensor, lower: Tensor) -> Tensor:
        y: Tensor = self.head(torch.cat([self.trunk(upper), self.trunk(lower)], 1))
        return y


class TwoHeads(nn.Module):
    """Two outputs: the classes, and a reconstruction of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(norm(1, 24), norm(24, 48, stride=2), norm(48, 48))
        self.classes, self.image = head(48), nn.ConvTranspose2d(48, 1, 4, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.trunk(x)
        return self.classes(y), self.image(y)


@dataclass(frozen=True)
class Example:
    """A network: its kind, how it is built, and its task.

    everything: linear layers are represented too.
    learning_rate: of the training of the network.
    trained: the network is built with trained weights, and is not trained again.
    """

    kind: str
    build: Callable[[], nn.Module]
    task: Callable[[], Task]
    everything: bool = False
    learning_rate: float = 2e-3
    trained: bool = False


def _timm(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm  # slow to import

        network: nn.Module = timm.create_model(name, num_classes=CLASSES, in_chans=3)
        return network

    return build


def _vit_tiny() -> nn.Module:
    """The layers of ViT-Tiny (Touvron et al., 2020), for patches of 8 x 8 pixels."""
    from torchvision.models import VisionTransformer as Vit  # slow to import

    network: nn.Module = Vit(32, 8, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=CLASSES)
    return network


def _swin_t() -> nn.Module:
    from torchvision.models import swin_t  # slow to import

    network: nn.Module = swin_t(num_classes=CLASSES)
    return network


def _cifar() -> nn.Module:
    from nern.architectures.cifar import ResNet

    return ResNet(8)


def _segment() -> Task:
    return tasks.segmentation()


EXAMPLES: dict[str, Example] = {
    "tutorial": Example("plain", tutorial, lambda: tasks.digits(32, 3)),
    "tutorial, everything": Example("plain", tutorial, lambda: tasks.digits(32, 3), everything=True),
    "lenet": Example("plain", lenet, tasks.digits),
    "vgg": Example("plain", lambda: vgg(norms=False), tasks.digits, learning_rate=1e-3),
    "vgg with norms": Example("plain", lambda: vgg(norms=True), tasks.digits),
    "all-convolutional": Example("plain", all_convolutional, tasks.digits),
    "cifar/resnet8": Example("residual", _cifar, lambda: tasks.digits(32, 3)),
    "resnet": Example("residual", resnet, tasks.digits),
    "wide": Example("residual", wide, tasks.digits),
    "bottleneck": Example("residual", bottleneck, tasks.digits),
    "resnext": Example("residual", lambda: bottleneck(groups=4), tasks.digits),
    "inception": Example("branches", inception, tasks.digits),
    "densenet": Example("branches", densenet, tasks.digits),
    "squeezenet": Example("branches", squeezenet, tasks.digits),
    "mobilenet": Example("depthwise", mobilenet, tasks.digits),
    "mobilenet v3": Example("depthwise", mobilenet_v3, tasks.digits),
    "shufflenet": Example("depthwise", shufflenet, tasks.digits),
    "convnext": Example("depthwise", convnext, tasks.digits),
    "convmixer": Example("depthwise", convmixer, tasks.digits),
    "timm/test_efficientnet": Example("depthwise", _timm("test_efficientnet.r160_in1k"), lambda: tasks.digits(32, 3)),
    "transformer": Example("transformer", lambda: VisionTransformer(convolutions=False), tasks.digits, everything=True),
    "transformer, conv stem": Example(
        "transformer", lambda: VisionTransformer(convolutions=True), tasks.digits, everything=True
    ),
    "mixer": Example("transformer", Mixer, tasks.digits, everything=True),
    "unet": Example("segmenter", lambda: UNet(1, CLASSES + 1, transposed=True), _segment),
    "unet, bilinear": Example("segmenter", lambda: UNet(1, CLASSES + 1, transposed=False), _segment),
    "fully convolutional": Example("segmenter", fully_convolutional, _segment),
    "dilated": Example("segmenter", dilated, _segment),
    "dncnn": Example("denoiser", dncnn, tasks.denoising),
    "dncnn without norms": Example("denoiser", lambda: dncnn(norms=False), tasks.denoising),
    "unet, denoising": Example("denoiser", lambda: UNet(3, 3, transposed=True), tasks.denoising),
    "srcnn": Example("super-resolution", srcnn, tasks.enlarging),
    "espcn": Example("super-resolution", espcn, tasks.enlarging),
    "edsr": Example("super-resolution", Edsr, tasks.enlarging),
    "autoencoder": Example("autoencoder", autoencoder, tasks.copying),
    "dcgan generator": Example("generator", generator, tasks.drawing),
    "detector": Example("detector", detector, tasks.detection),
    "feature pyramid": Example("detector", Pyramid, tasks.detection),
    "m5": Example("1-D", m5, tasks.audio),
    "temporal": Example("1-D", temporal, tasks.audio),
    "wavenet": Example("1-D", WaveNet, tasks.audio),
    "gru head": Example("recurrent", lambda: Recurrent(nn.GRU, both=True), tasks.rows),
    "lstm head": Example("recurrent", lambda: Recurrent(nn.LSTM, both=False), tasks.rows),
    "3-D": Example("3-D", volumetric, tasks.video),
    "(2+1)-D": Example("3-D", factorised, tasks.video),
    "two inputs": Example("several ends", TwoInputs, tasks.halves),
    "two outputs": Example("several ends", TwoHeads, tasks.digits),
}

# Networks of millions of weights, which take far longer than a minute. They are trained and represented only if named.
LARGE: dict[str, Example] = {
    "vit-tiny": Example("transformer", _vit_tiny, lambda: tasks.digits(32, 3), everything=True, learning_rate=5e-4),
    "swin-t": Example("transformer", _swin_t, lambda: tasks.digits(32, 3), everything=True, learning_rate=5e-4),
}
