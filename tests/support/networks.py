"""Small networks and images, which are the same in every run."""

import zipfile
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import nn

from nern.architectures.cifar import ResNet, Shortcut
from nern.images import Images
from nern.layers import StateDict


def resnet8(*, shortcut: Shortcut = "A", channels: int = 3, classes: int = 10, seed: int = 0) -> StateDict:
    """The state_dict of an untrained ResNet-8."""
    torch.manual_seed(seed)
    return ResNet(8, shortcut=shortcut, channels=channels, classes=classes).state_dict()


def smooth_kernels(*shape: int, seed: int = 0) -> torch.Tensor:
    """A weight of random kernels. Their directions differ so much that paths along similar kernels are unique."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Odd(nn.Module):
    """A network of no known architecture, with every kind of convolution, many kernel sizes, and layers of other kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.wide = nn.Conv2d(8, 6, (1, 3))
        self.point = nn.Conv2d(6, 4, 1, bias=False)
        self.wide_point = nn.Conv2d(20, 3, 1)
        self.grouped = nn.Conv2d(8, 6, 3, groups=2)
        self.up = nn.ConvTranspose2d(4, 5, 2)
        self.line = nn.Conv1d(7, 3, 3)
        self.volume = nn.Conv3d(2, 3, (2, 3, 3))
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)


def odd() -> StateDict:
    """The state_dict of an untrained network of the class Odd."""
    torch.manual_seed(0)
    return Odd().state_dict()


def images(count: int = 40, *, size: int = 8, channels: int = 3, labelled: bool = True) -> Images:
    """Random images of `size` x `size` pixels, with random labels of ten classes if `labelled`."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, size, size, channels), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator) if labelled else None
    return Images(pixels, labels, (0.5,) * channels, (0.25,) * channels)


def npz(**arrays: Any) -> bytes:
    """The bytes of an .npz file of arrays."""
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def dataset_file(count: int = 40, *, size: int = 8, channels: int = 3) -> bytes:
    """The bytes of a dataset that can be uploaded."""
    made = images(count, size=size, channels=channels)
    assert made.labels_N is not None
    return npz(images=made.pixels_NHWC.numpy(), labels=made.labels_N.numpy())


def saved(content: object, *, legacy: bool = False) -> bytes:
    """The bytes that torch.save writes."""
    buffer = BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def zipped(**members: bytes) -> bytes:
    """The bytes of a zip archive. Two underscores in the name of a member stand for a slash."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def filled(network: nn.Module) -> nn.Module:
    """The network, in eval mode, with weights that depend only on the names and shapes of its tensors."""
    values: StateDict = {}
    for name, tensor in network.state_dict().items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.rand(tensor.shape, generator=generator) * 2 - 1
        if tensor.ndim > 1:
            values[name] = noise * (6 / tensor[0].numel()) ** 0.5
        else:
            values[name] = 0.2 * noise + (1 if name.endswith(("weight", "running_var")) else 0)
    network.load_state_dict(values)
    return network.eval()
