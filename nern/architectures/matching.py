"""Architectures that a state_dict matches, by the names and shapes of its tensors. Needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nern.architectures.table import Entry, Shape, read
from nern.errors import NotRepresentable, UnknownArchitecture

# Batch norm counts its batches since torch 0.4.1; the number plays no part in evaluation.
COUNTER = "num_batches_tracked"


class Shaped(Protocol):
    """A tensor, or a description of one."""

    @property
    def shape(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class Match:
    """How a state_dict matches an architecture: `variant` of those in the table, and what shapes say about both ends.

    `image_size` is the height and width of the images that the variant was made for, in pixels; `groups` are those of every
    convolution, by the name of its weight.
    """

    architecture: str
    variant: int
    classes: int
    channels: int
    image_size: int
    groups: Mapping[str, int]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images that the architecture was made for."""
        return self.channels, self.image_size, self.image_size


def architectures() -> list[str]:
    """All names: `cifar/resnet20`, ..., `torchvision/resnet18`, ..."""
    return list(read())


def shapes_of(tensors: Mapping[str, Shaped]) -> dict[str, Shape]:
    """The names and shapes of a state_dict, or of what describes one."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def recognise(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """The architectures whose state_dict has exactly these names and shapes, up to classes and input channels."""
    given = _counted(shapes)
    return [name for name, entries in read().items() if any(_matches(entry, given) for entry in entries)]


def match(name: str, shapes: Mapping[str, Sequence[int]]) -> Match:
    """How names and shapes match an architecture.

    Raises UnknownArchitecture if there is no such name or the names and shapes are of another network.
    """
    if name not in read():
        raise UnknownArchitecture(f"there is no architecture {name!r}", "/architecture")
    given = _counted(shapes)
    entries = read()[name]
    for number, entry in enumerate(entries):
        if _matches(entry, given):
            classes, channels = _ends(entry, given)
            return Match(name, number, classes, channels, entry.image_size, entry.groups)
    difference = _first_difference(_expected(entries[0], given), given)
    raise UnknownArchitecture(f"the checkpoint is not a {name}: {difference}", "/architecture")


def groups(name: str, shapes: Mapping[str, Sequence[int]]) -> Mapping[str, int]:
    """The number of groups of every convolution, by the name of its weight. Raises UnknownArchitecture."""
    return match(name, shapes).groups


def input_shape(name: str, shapes: Mapping[str, Sequence[int]]) -> tuple[int, int, int]:
    """Channels, height and width of the images that the architecture was made for. Raises UnknownArchitecture."""
    return match(name, shapes).input_shape


def paper_layers(name: str | None, convolutions: Mapping[str, Sequence[int]]) -> list[str]:
    """The convolutions that the authors of NeRN predict: all of a CIFAR network, the 3x3 ones of an ImageNet ResNet.

    Raises NotRepresentable for networks that they did not represent.
    """
    if name is not None and name.startswith("cifar/"):
        return list(convolutions)
    if name is not None and name.startswith("torchvision/resnet"):
        return [layer for layer, shape in convolutions.items() if tuple(shape[2:]) == (3, 3)]
    detail = 'layers "paper" is defined for cifar/resnet* and torchvision/resnet* only; use "all" or names'
    raise NotRepresentable(detail, "/layers")


def _counted(shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """Without the counters of batch norms."""
    return {name: tuple(shape) for name, shape in shapes.items() if not name.endswith(COUNTER)}


def _matches(entry: Entry, given: Mapping[str, Shape]) -> bool:
    # Most architectures are told apart by how many tensors they have, without their shapes being put together.
    return len(given) == entry.tensors and given.keys() >= {entry.stem, *entry.heads} and given == _expected(entry, given)


def _expected(entry: Entry, given: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of an architecture with as many classes and channels as the given shapes have."""
    classes, channels = _ends(entry, given)
    expected = dict(entry.shapes)
    first = expected[entry.stem]
    expected[entry.stem] = (first[0], channels, *first[2:])
    for name in entry.heads:
        expected[name] = (classes, *expected[name][1:])
    return expected


def _ends(entry: Entry, given: Mapping[str, Shape]) -> tuple[int, int]:
    """Classes and input channels, or the architecture's own where the given shapes are of another network."""
    head, stem = given.get(entry.heads[0], ()), given.get(entry.stem, ())
    classes = head[0] if head else 0
    channels = stem[1] if len(stem) == 4 else 0
    return classes or entry.classes, channels or entry.shapes[entry.stem][1]


def _first_difference(expected: Mapping[str, Shape], given: Mapping[str, Shape]) -> str:
    for name, shape in expected.items():
        if name not in given:
            return f"it has no tensor {name!r}"
        if given[name] != shape:
            return f"{name!r} has the shape {list(given[name])} instead of {list(shape)}"
    extra = next(name for name in given if name not in expected)
    return f"it has an unexpected tensor {extra!r}"
