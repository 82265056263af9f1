"""Small networks of many kinds, the same in every run, each with inputs: what readers of graphs are tested with."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without a bias, a batch norm and a ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Tutorial(nn.Module):
    """The network of the PyTorch tutorial for CIFAR-10, for smaller images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 24)
        self.fc2 = nn.Linear(24, 16)
        self.fc3 = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        y: Tensor = self.fc3(x)
        return y


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            None if stride == 1 else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += shortcut
        result: Tensor = self.relu(y)
        return result


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 8)
        self.layer1 = ResidualBlock(8, 8, 1)
        self.layer2 = ResidualBlock(8, 12, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.layer2(self.layer1(self.stem(x))))
        y: Tensor = self.fc(x.view(x.size(0), -1))
        return y


class InvertedResidual(nn.Module):
    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, wider, 1, bias=False),
            nn.BatchNorm2d(wider),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wider, wider, 3, 1, 1, groups=wider, bias=False),
            nn.BatchNorm2d(wider),
            nn.Hardswish(inplace=True),
            nn.Conv2d(wider, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv(x)
        return y


class Dense(nn.Module):
    """Every layer takes the outputs of all layers before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3))
        self.transition = nn.AvgPool2d(2)
        self.head = nn.Linear(18, 10)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            maps.append(conv(F.relu(norm(torch.cat(maps, 1)), inplace=True)))
        y: Tensor = self.head(self.transition(torch.cat(maps, 1)).mean((2, 3)))
        return y


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.excite = nn.Sequential(nn.Linear(channels, 4), nn.SiLU(), nn.Linear(4, channels), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        scales = self.excite(self.squeeze(x).view(b, c)).view(b, c, 1, 1)
        y: Tensor = x * scales.expand_as(x)
        return y


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = conv_norm(3, 6)
        self.down2 = conv_norm(6, 8)
        self.middle = conv_norm(8, 12)
        self.up2 = nn.ConvTranspose2d(12, 8, 2, 2)
        self.merge2 = conv_norm(16, 8)
        self.merge1 = conv_norm(14, 6)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        y = self.middle(F.max_pool2d(two, 2))
        y = self.merge2(torch.cat([self.up2(y), two], 1))
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
        y = self.merge1(torch.cat([y, one], 1))
        result: Tensor = self.out(y)
        return result


class Denoiser(nn.Module):
    """As DnCNN: predicts the noise and subtracts it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), conv_norm(8, 8), conv_norm(8, 8))
        self.tail = nn.Conv2d(8, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x - self.tail(self.body(x))
        return y


class Segmenter(nn.Module):
    """As FCN: dense logits, in the size of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(conv_norm(3, 8, stride=2), nn.Conv2d(8, 12, 3, padding=2, dilation=2), nn.LeakyReLU(0.1))
        self.classifier = nn.Conv2d(12, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.classifier(self.backbone(x))
        return F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)


class Detector(nn.Module):
    """As SSD: boxes and scores of all places of two feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.one = conv_norm(3, 8, stride=2)
        self.two = conv_norm(8, 12, stride=2)
        self.boxes = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)])
        self.scores = nn.ModuleList([nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(12, 6, 3, padding=1)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one = self.one(x)
        maps = (one, self.two(one))
        boxes = [head(part).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4) for head, part in zip(self.boxes, maps, strict=True)]
        scores = [
            head(part).permute(0, 2, 3, 1).contiguous().view(x.shape[0], -1, 3)
            for head, part in zip(self.scores, maps, strict=True)
        ]
        return torch.cat(boxes, 1), F.softmax(torch.cat(scores, 1), dim=-1)


class Wave(nn.Module):
    """As WaveNet: causal dilated convolutions with gates."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, 8, 1)
        self.filters = nn.ModuleList(nn.Conv1d(8, 8, 2, dilation=2**i) for i in range(3))
        self.gates = nn.ModuleList(nn.Conv1d(8, 8, 2, dilation=2**i) for i in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(8, 6, 1) for _ in range(3))
        self.end = nn.Conv1d(6, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        total = torch.zeros(())
        for i in range(3):
            padded = F.pad(x, (2**i, 0))
            gated = torch.tanh(self.filters[i](padded)) * torch.sigmoid(self.gates[i](padded))
            total = total + self.skips[i](gated)
            x = x + gated
        y: Tensor = self.end(F.elu(total))
        return y


class Recurrent(nn.Module):
    """As CRNN: columns of a feature map as a sequence, through a GRU in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv_norm(1, 6), nn.MaxPool2d((2, 1)))
        self.rnn = nn.GRU(6 * 4, 7, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y, _ = self.rnn(y.flatten(1, 2).transpose(1, 2))
        return F.log_softmax(self.head(y), dim=2)


class Memory(nn.Module):
    """An embedding and an LSTM; the last state is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        _, (state, _) = self.lstm(self.embedding(tokens))
        y: Tensor = self.head(state[-1])
        return y


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))
        return y


class Vision(nn.Module):
    """A small vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 17, 16))
        self.norms1 = nn.ModuleList(nn.LayerNorm(16) for _ in range(2))
        self.attentions = nn.ModuleList(Attention(16, 2) for _ in range(2))
        self.norms2 = nn.ModuleList(nn.LayerNorm(16) for _ in range(2))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 16)) for _ in range(2)
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        for norm1, attention, norm2, mlp in zip(self.norms1, self.attentions, self.norms2, self.mlps, strict=True):
            x = x + attention(norm1(x))
            x = x + mlp(norm2(x))
        y: Tensor = self.head(x[:, 0])
        return y


class Encoder(nn.Module):
    """torch.nn's own attention, written out with matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.linear1 = nn.Linear(8, 16)
        self.linear2 = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        attended, _ = self.attention(x, x, x)
        x = self.norm(x + attended)
        y: Tensor = x + self.linear2(F.relu(self.linear1(x)))
        return y


class Windows(nn.Module):
    """As Swin: attention in shifted windows, with a table of relative positions and a mask."""

    relative: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, 2)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.proj = nn.Linear(8, 8)
        self.table = nn.Parameter(torch.randn(49, 2))
        places = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
        relative = (places[:, :, None] - places[:, None, :] + 3).permute(1, 2, 0)
        self.register_buffer("relative", (relative[..., 0] * 7 + relative[..., 1]).reshape(-1))
        regions = torch.zeros(8, 8)
        regions[4:6] = 1
        regions[6:] = 2
        regions[:, 6:] += 3
        windows = regions.view(2, 4, 2, 4).permute(0, 2, 1, 3).reshape(4, 16)
        mask = (windows[:, None] != windows[:, :, None]).float() * -100.0
        self.register_buffer("mask", mask, persistent=False)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        y = torch.roll(self.norm(x), shifts=(-2, -2), dims=(1, 2))
        y = y.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.qkv(y).reshape(-1, 16, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        attention = (q * (c // 2) ** -0.5) @ k.transpose(-2, -1)
        bias = self.table[self.relative].view(16, 16, 2).permute(2, 0, 1).contiguous()
        attention = attention + bias.unsqueeze(0)
        attention = attention.view(b, 4, 2, 16, 16) + self.mask.unsqueeze(1).unsqueeze(0)
        attention = attention.view(-1, 2, 16, 16).softmax(-1)
        y = self.proj((attention @ v).transpose(1, 2).reshape(-1, 16, c))
        y = y.view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = x + torch.roll(y, shifts=(2, 2), dims=(1, 2))
        result: Tensor = self.head(x.mean((1, 2)))
        return result


class ConvNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.wide = nn.Linear(8, 32)
        self.narrow = nn.Linear(32, 8)
        self.gamma = nn.Parameter(torch.full((8,), 0.5))
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.narrow(F.gelu(self.wide(y)))
        x = x + y.permute(0, 3, 1, 2)
        result: Tensor = self.head(x.mean([-2, -1]))
        return result


class Shared(nn.Module):
    """One convolution that is used twice, and a head that shares the weight of the first linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.shared(x))
        x = F.relu(self.shared(x))
        y: Tensor = self.second(F.relu(self.first(F.adaptive_avg_pool2d(x, 1).flatten(1))))
        return y


class Shuffle(nn.Module):
    """As ShuffleNet: channels are split, and shuffled after a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.branch = nn.Sequential(conv_norm(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4))
        self.group = nn.Conv2d(8, 8, 1, groups=2)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        left, right = x.chunk(2, dim=1)
        x = torch.cat((left, self.branch(right)), dim=1)
        b, c, h, w = x.size()
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)
        y: Tensor = self.head(F.relu6(self.group(x)).mean([2, 3]))
        return y


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 1)
        self.tall = nn.Sequential(nn.Conv2d(3, 4, (1, 5), padding=(0, 2)), nn.Conv2d(4, 4, (5, 1), padding=(2, 0)), nn.PReLU(4))
        self.pooled = nn.Conv2d(3, 4, 1)
        self.head = nn.Conv2d(12, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(F.avg_pool2d(x, 3, stride=1, padding=1))
        y = torch.cat([F.relu(self.one(x)), self.tall(x), pooled], 1)
        return self.head(y).amax((2, 3)) if self.training else F.adaptive_max_pool2d(self.head(y), 1).flatten(1)


class TwoInputs(nn.Module):
    """An image and a vector; the vector scales the channels, as in conditional networks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.condition = nn.Linear(5, 16)
        self.conv2 = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.condition(vector)[:, :, None, None].chunk(2, 1)
        y = F.silu(self.norm(self.conv1(image)) * (1 + scale) + shift)
        result: Tensor = self.conv2(y)
        return result


class Volumes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            nn.MaxPool3d((1, 2, 2)),
            nn.Conv3d(4, 6, (3, 1, 1)),
            nn.InstanceNorm3d(6, affine=True),
            nn.Softplus(),
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.features(x).mean(dim=(2, 3, 4)))
        return y


@dataclass(frozen=True)
class Kind:
    """A network of the zoo. Shapes are those of one input each, without the batch axis.

    `integers` is the bound of the inputs' values if they are integers. Otherwise the inputs are normally distributed.
    """

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    integers: int | None = None

    def network(self, seed: int = 0) -> nn.Module:
        """The network in evaluation mode, with weights and statistics that are random, but the same in every run."""
        torch.manual_seed(seed)
        network = self.build()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
        return network.eval()

    def inputs(self, count: int = 1, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs, `count` of each."""
        generator = torch.Generator().manual_seed(seed)
        if self.integers is not None:
            return tuple(torch.randint(0, self.integers, (count, *shape), generator=generator) for shape in self.shapes)
        return tuple(torch.randn((count, *shape), generator=generator) for shape in self.shapes)


IMAGE = (3, 16, 16)

ZOO: dict[str, Kind] = {
    "tutorial": Kind(Tutorial, ((3, 32, 32),)),
    "residual": Kind(Residual, (IMAGE,)),
    "mobile": Kind(
        lambda: nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)),
            InvertedResidual(8, 16),
            InvertedResidual(8, 16),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(8, 10),
        ),
        (IMAGE,),
    ),
    "dense": Kind(Dense, (IMAGE,)),
    "squeeze-excite": Kind(
        lambda: nn.Sequential(conv_norm(3, 8), SqueezeExcite(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
        (IMAGE,),
    ),
    "unet": Kind(UNet, (IMAGE,)),
    "denoiser": Kind(Denoiser, ((1, 12, 12),)),
    "super-resolution": Kind(
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"),
            nn.Tanh(),
            nn.Conv2d(6, 4, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Sigmoid(),
        ),
        ((1, 8, 8),),
    ),
    "segmenter": Kind(Segmenter, (IMAGE,)),
    "detector": Kind(Detector, (IMAGE,)),
    "audio": Kind(
        lambda: nn.Sequential(
            nn.Conv1d(1, 6, 9, stride=2, padding=4, bias=False),
            nn.BatchNorm1d(6),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(6, 8, 3, groups=2),
            nn.SELU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
            nn.LogSoftmax(dim=1),
        ),
        ((1, 64),),
    ),
    "wave": Kind(Wave, ((1, 20),)),
    "volumes": Kind(Volumes, ((1, 4, 8, 8),)),
    "recurrent": Kind(Recurrent, ((1, 8, 12),)),
    "memory": Kind(Memory, ((9,),), integers=20),
    "vision": Kind(Vision, (IMAGE,)),
    "encoder": Kind(Encoder, ((6, 8),)),
    "windows": Kind(Windows, (IMAGE,)),
    "convnext": Kind(ConvNext, (IMAGE,)),
    "generator": Kind(
        lambda: nn.Sequential(
            nn.ConvTranspose2d(8, 8, 4, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(True),
            nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1, groups=2),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(4, 3, 3, padding=1),
            nn.Tanh(),
        ),
        ((8, 1, 1),),
    ),
    "shared": Kind(Shared, (IMAGE,)),
    "shuffle": Kind(Shuffle, (IMAGE,)),
    "inception": Kind(Inception, (IMAGE,)),
    "autoencoder": Kind(
        lambda: nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 12),
            nn.GELU(approximate="tanh"),
            nn.Linear(12, 64),
            nn.Sigmoid(),
            nn.Unflatten(1, (1, 8, 8)),
        ),
        ((1, 8, 8),),
    ),
    "two-inputs": Kind(TwoInputs, (IMAGE, (5,))),
    "perceptron": Kind(
        lambda: nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Mish(), nn.Linear(16, 3), nn.Softmax(-1)), ((12,),)
    ),
}
