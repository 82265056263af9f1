"""Matching of architectures by the names and shapes of the tensors of a state_dict. This module does not import torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nern.architectures.table import Entry, Shape, read
from nern.errors import NotRepresentable, UnknownArchitecture
from nern.prefixes import View, views

# Batch norms have a counter of batches since torch 0.4.1. It has no effect in eval mode, and a state_dict may lack it.
COUNTER = "num_batches_tracked"


class Shaped(Protocol):
    """A tensor, or a description that has the shape of a tensor."""

    @property
    def shape(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class Match:
    """A match of a state_dict with an architecture.

    variant: the number of the variant in the table.
    classes, channels: the numbers of classes and of input channels, from the shapes of the state_dict.
    image_size: the height and width, in pixels, of the images that the variant is made for.
    groups: the number of groups of every convolution, by the name of its weight in the file.
    view: the names of the network's tensors, bare and in the file.
    """

    architecture: str
    variant: int
    classes: int
    channels: int
    image_size: int
    groups: Mapping[str, int]
    view: View

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The channels, height and width of the images that the variant is made for."""
        return self.channels, self.image_size, self.image_size


def architectures() -> list[str]:
    """The names of all architectures: `cifar/resnet20`, …, `torchvision/resnet18`, …"""
    return list(read())


def shapes_of(tensors: Mapping[str, Shaped]) -> dict[str, Shape]:
    """The shapes of tensors, or of descriptions of tensors, by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def recognise(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """The names of the architectures that have these names and shapes.

    Classes and input channels may differ, names may have a prefix, and there may be other tensors.
    """
    for view in views(shapes):
        given = _counted(view.of(shapes))
        if found := [name for name, entries in read().items() if any(_matches(entry, given) for entry in entries)]:
            return found
    return []


def match(name: str, shapes: Mapping[str, Sequence[int]]) -> Match:
    """The match of names and shapes with an architecture.

    Raises UnknownArchitecture if there is no architecture of this name, or its names and shapes differ.
    """
    if name not in read():
        raise UnknownArchitecture(f"there is no architecture {name!r}", "/architecture")
    entries = read()[name]
    for view in views(shapes):
        given = _counted(view.of(shapes))
        for number, entry in enumerate(entries):
            if _matches(entry, given):
                classes, channels = _ends(entry, given)
                groups = {view.bare[weight]: count for weight, count in entry.groups.items()}
                return Match(name, number, classes, channels, entry.image_size, groups, view)
    given = _counted(shapes)
    difference = _first_difference(_expected(entries[0], given), given)
    raise UnknownArchitecture(f"the checkpoint is not a {name}: {difference}", "/architecture")


def groups(name: str, shapes: Mapping[str, Sequence[int]]) -> Mapping[str, int]:
    """The number of groups of every convolution, by the name of its weight. Raises UnknownArchitecture."""
    return match(name, shapes).groups


def input_shape(name: str, shapes: Mapping[str, Sequence[int]]) -> tuple[int, int, int]:
    """The channels, height and width of the images that the architecture is made for. Raises UnknownArchitecture."""
    return match(name, shapes).input_shape


def paper_layers(name: str | None, convolutions: Mapping[str, Sequence[int]]) -> list[str]:
    """The names of the convolutions that the authors of NeRN represent.

    In networks for CIFAR these are all convolutions, in ResNets for ImageNet all 3x3 convolutions. Raises NotRepresentable for
    other networks.
    """
    if name is not None and name.startswith("cifar/"):
        return list(convolutions)
    if name is not None and name.startswith("torchvision/resnet"):
        return [layer for layer, shape in convolutions.items() if tuple(shape[2:]) == (3, 3)]
    detail = 'layers "paper" is only possible for cifar/resnet* and torchvision/resnet*; use "all" or a list of names'
    raise NotRepresentable(detail, "/layers")


def _counted(shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """The shapes by name, without the counters of batch norms."""
    return {name: tuple(shape) for name, shape in shapes.items() if not name.endswith(COUNTER)}


def _matches(entry: Entry, given: Mapping[str, Shape]) -> bool:
    # The number of tensors, which needs no reading of the shapes, excludes most architectures.
    return len(given) == entry.tensors and given.keys() >= {entry.stem, *entry.classifiers} and given == _expected(entry, given)


def _expected(entry: Entry, given: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of an architecture with the classes and the input channels of the given shapes."""
    classes, channels = _ends(entry, given)
    expected = dict(entry.shapes)
    first = expected[entry.stem]
    expected[entry.stem] = (first[0], channels, *first[2:])
    for name in entry.classifiers:
        expected[name] = (classes, *expected[name][1:])
    return expected


def _ends(entry: Entry, given: Mapping[str, Shape]) -> tuple[int, int]:
    """The classes and input channels of the given shapes; where they do not tell, those of the architecture."""
    classifier, stem = given.get(entry.classifiers[0], ()), given.get(entry.stem, ())
    classes = classifier[0] if classifier else 0
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
