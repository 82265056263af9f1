"""Small networks of no known architecture, as programs."""

from io import BytesIO
from typing import BinaryIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nern.graph import exported
from nern.network import Network


class Denoiser(nn.Module):
    """A U-Net of one level for grey images, which subtracts the noise that it finds."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.out = nn.Conv2d(5, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(F.relu(self.middle(F.relu(self.norm(self.down(x))))))
        return x - self.out(torch.cat([x, y], 1))  # type: ignore[no-any-return]


class Segmenter(nn.Module):
    """A class for each pixel, as logits or, with `softmax`, as probabilities."""

    def __init__(self, *, softmax: bool = False) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1)
        self.softmax = softmax

    def forward(self, x: Tensor) -> Tensor:
        logits = 4 * self.conv2(F.relu(self.norm(self.conv1(x))))
        return logits.softmax(1) if self.softmax else logits  # type: ignore[no-any-return]


class TwoHeads(nn.Module):
    """Logits of five classes, and boxes of four numbers in places with offsets of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.classes, self.boxes = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = F.relu(self.conv(x)).mean((2, 3))
        return 5 * self.classes(features), self.boxes(features) + torch.tensor([0.0, 10.0, 20.0, 30.0])


class TwoInputs(nn.Module):
    """An image and the numbers of three words in, one number out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.words, self.head = nn.Conv2d(3, 8, 3), nn.Embedding(10, 8), nn.Linear(16, 1)

    def forward(self, image: Tensor, words: Tensor) -> Tensor:
        features = F.relu(self.conv(image)).mean((2, 3))
        return self.head(torch.cat([features, self.words(words).mean(1)], 1))  # type: ignore[no-any-return]


class Pair(nn.Module):
    """Two images in, through batch norms, an image out."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1)
        self.norm, self.out = nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.out(F.relu(self.norm(self.left(left) + self.right(right))))  # type: ignore[no-any-return]


def sound() -> nn.Module:
    """A 1-D network: a waveform in, a waveform out."""
    return nn.Sequential(nn.Conv1d(1, 8, 9, padding=4), nn.ReLU(), nn.Conv1d(8, 1, 9, padding=4))


def volume() -> nn.Module:
    """A 3-D network: a volume in, four numbers out."""
    return nn.Sequential(nn.Conv3d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4))


def network(module: nn.Module, *examples: Tensor, free: dict[str, list[int]] | None = None) -> Network:
    """The module as a program with its weights. `examples` have a batch of at least 2, which is free.

    `free` has further free axes by the name of the input.
    """
    batch = torch.export.Dim("batch")
    names = list(torch.export.export(module.eval(), examples).graph_signature.user_inputs)
    shapes = [
        {0: batch, **{axis: torch.export.Dim(f"{name}{axis}") for axis in (free or {}).get(str(name), [])}} for name in names
    ]
    file = BytesIO()
    torch.export.save(torch.export.export(module.eval(), examples, dynamic_shapes=tuple(shapes)), file)
    file.seek(0)
    read = exported.read(file, _read)
    return Network(read.state_dict, None, read.program)


def made(kind: type[nn.Module], **options: bool) -> nn.Module:
    """A network of this class, the same in every run. Its batch norms have the statistics of random inputs."""
    torch.manual_seed(0)
    module = kind(**options)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
    return module


def _read(file: BinaryIO) -> dict[str, Tensor]:
    raise AssertionError("files of this torch have no pickles")
