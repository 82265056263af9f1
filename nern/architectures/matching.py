"""Matching of architectures by the names and shapes of the tensors of a state_dict. This module does not import torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from nern.architectures.heads import Head, parse
from nern.architectures.table import Entry, Kind, Shape, read, sum_of, sums
from nern.errors import NotRepresentable, UnknownArchitecture
from nern.prefixes import View, views

# Batch norms have a counter of batches since torch 0.4.1. It has no effect in eval mode, and a state_dict may lack it.
COUNTER = "num_batches_tracked"

# The share of the numbers in a file that may belong to something else than the network: a loss, or an unused copy of a stage.
FOREIGN_SHARE = 0.4
# The same for a network whose head is missing or replaced. A backbone is found in many networks that are more than it.
FOREIGN_SHARE_WITHOUT_HEAD = 0.1

# The nearest architecture is named if so many of the tensors are the same.
NEAR = 0.5
# The number of architectures that are compared with a state_dict that none fits.
NEAREST = 8


class Shaped(Protocol):
    """A tensor, or a description that has the shape of a tensor."""

    @property
    def shape(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class Match:
    """A match of a state_dict with an architecture.

    variant: the number of the variant in the table.
    classes, channels: the numbers of classes and of input channels, from the shapes of the state_dict. A network without
        classes, or whose head is missing, has 0 classes.
    image_size: the height and width, in pixels, of the images that the variant is made for.
    frames: the number of frames of the videos that it is made for; 0 for images.
    groups: the number of groups of every convolution, by the name of its weight in the file.
    outputs: the kind of each output, by name. The built network returns a tensor if the only output is logits, features or
        maps, else a dictionary.
    view: the names of the network's tensors: bare names, as the built network has them, and names in the file.
    head: what the file has as the head of the network, or None if the architecture has no head that can be replaced.
    alternatives: other architectures with the same names and shapes, which compute something else.
    """

    architecture: str
    variant: int
    classes: int
    channels: int
    image_size: int
    frames: int
    groups: Mapping[str, int]
    outputs: Mapping[str, Kind]
    view: View
    head: Head | None
    alternatives: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The channels, height and width of the images that the variant is made for; of videos, channels, frames and these."""
        frames = (self.frames,) if self.frames else ()
        return self.channels, *frames, self.image_size, self.image_size

    @property
    def notes(self) -> list[str]:
        """Sentences about what was assumed, for the person who has sent the file."""
        notes = []
        if self.head is not None and not self.head.own:
            if not self.head.layers:
                notes.append(f"the head {self.head.path!r} is missing: the outputs of the network are features")
            elif self.head.activations:
                places = ", ".join(f"{self.head.path}.{name}" for name in self.head.activations)
                notes.append(f"the head {self.head.path!r} is not the architecture's own: a ReLU is taken to be at {places}")
        if self.alternatives:
            others = ", ".join(self.alternatives)
            notes.append(f"other networks have the same names and shapes; if it is one of these, name it in the job: {others}")
        return notes


@dataclass(frozen=True)
class _Fit:
    """An entry that the names and shapes of a view fit."""

    entry: Entry
    view: View
    head: Head | None
    classes: int
    channels: int

    @property
    def certainty(self) -> int:
        """2 with the architecture's own head, 1 with another, 0 without one."""
        return 2 if self.head is None or self.head.own else bool(self.head.layers)

    @property
    def rank(self) -> int:
        usual = self.entry.usual_classes
        return 0 if usual and self.classes not in usual else self.entry.rank


def architectures() -> list[str]:
    """The names of all architectures: `cifar/resnet20`, …, `torchvision/resnet18`, …, `timm/resnet26`, …"""
    return list(read().entries)


def shapes_of(tensors: Mapping[str, Shaped]) -> dict[str, Shape]:
    """The shapes of tensors, or of descriptions of tensors, by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def recognise(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """The names of the architectures that have these names and shapes.

    Classes and input channels may differ, names may have a prefix, the head may be replaced or missing, and there may be
    tensors beside those of the network. Of architectures with the same tensors, the most likely are returned: those of
    torchvision and for CIFAR, or else those of timm that have published weights. `Match.alternatives` has the others.
    """
    given = _tuples(shapes)
    best: list[_Fit] = []
    for view in views(given):
        fits = _fits(view, given, named=False)
        best = max(best, fits, key=lambda some: max((fit.certainty for fit in some), default=-1))
        if best and best[0].certainty == 2:
            break
    certainty = max((fit.certainty for fit in best), default=0)
    best = [fit for fit in best if fit.certainty == certainty]
    rank = max((fit.rank for fit in best), default=0)
    return list(dict.fromkeys(fit.entry.architecture for fit in best if fit.rank == rank))


def match(name: str, shapes: Mapping[str, Sequence[int]]) -> Match:
    """The match of names and shapes with an architecture, or with another of the same function under another name.

    Raises UnknownArchitecture if there is no architecture of this name, or its names and shapes differ.
    """
    table = read()
    name = table.aliases.get(name, name)
    if name not in table.entries:
        raise UnknownArchitecture(f"there is no architecture {name!r}", "/architecture")
    given = _tuples(shapes)
    found: tuple[_Fit, list[_Fit]] | None = None
    for view in views(given):
        fits = _fits(view, given, named=True)
        for fit in fits:
            if fit.entry.architecture == name and (found is None or fit.certainty > found[0].certainty):
                found = fit, fits
        if found is not None and found[0].certainty == 2:
            break
    if found is None:
        difference = _difference(table.entries[name], given)[1]
        raise UnknownArchitecture(f"the checkpoint is not a {name}: {difference}", "/architecture")
    return _match(*found)


def nearest(shapes: Mapping[str, Sequence[int]]) -> tuple[str, str] | None:
    """The architecture that most of the tensors fit, and the first difference; None if no architecture is near.

    For a checkpoint that no architecture fits. The difference is the end of a sentence that begins with the checkpoint.
    """
    table = read()
    given = _tuples(shapes)
    near: list[tuple[float, str]] = []
    for view in islice(views(given), 3):
        tops = {name.partition(".")[0] for name in view.bare}
        tensors = sum(not name.endswith(COUNTER) for name in view.bare) or 1
        bodies = ((number, body.tops) for number, body in enumerate(table.bodies) if body.tops & tops)
        common = {number: len(of_body & tops) / len(of_body | tops) for number, of_body in bodies}
        for (body, count, _), entries in table.index.items():
            if body in common:
                near += [(common[body] - abs(count / tensors - 1), entry.architecture) for entry in entries]
    near.sort(key=lambda pair: -pair[0])
    best: tuple[float, str, str] | None = None
    for name in list(dict.fromkeys(name for _, name in near))[:NEAREST]:
        share, difference = _difference(table.entries[name], given)
        if share >= NEAR and (best is None or share > best[0]):
            best = share, name, difference
    return best and best[1:]


def groups(name: str, shapes: Mapping[str, Sequence[int]]) -> Mapping[str, int]:
    """The number of groups of every convolution, by the name of its weight. Raises UnknownArchitecture."""
    return match(name, shapes).groups


def input_shape(name: str, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """The shape of the inputs that the architecture is made for; see `Match.input_shape`. Raises UnknownArchitecture."""
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


def _tuples(shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    return {name: tuple(shape) for name, shape in shapes.items()}


def _counted(view: View, given: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes by bare name, without the counters of batch norms."""
    return {bare: given[name] for bare, name in view.bare.items() if not bare.endswith(COUNTER)}


def _match(fit: _Fit, fits: list[_Fit]) -> Match:
    entry = fit.entry
    outputs: Mapping[str, Kind] = entry.ends.outputs
    if fit.head is not None and not fit.head.own and not fit.head.layers:
        outputs = {"features": "features"}
    others = {other.entry.architecture for other in fits if other.certainty == fit.certainty} - {entry.architecture}
    return Match(
        architecture=entry.architecture,
        variant=entry.number,
        classes=fit.classes,
        channels=fit.channels,
        image_size=entry.image_size,
        frames=entry.ends.frames,
        groups={fit.view.bare[name]: number for name, number in entry.groups.items() if name in fit.view.bare},
        outputs=outputs,
        view=fit.view,
        head=fit.head,
        alternatives=tuple(sorted(others)),
    )


def _fits(view: View, given: Mapping[str, Shape], *, named: bool) -> list[_Fit]:
    """The entries that a view of the given shapes fits. Unless `named`, most numbers must belong to the network."""
    table = read()
    tops = {name.partition(".")[0] for name in view.bare}
    bodies = [(number, body) for number, body in enumerate(table.bodies) if body.tops <= tops]
    if not bodies:
        return []
    shapes = _counted(view, given)
    totals = sums(shapes)
    found: dict[tuple[str, int], _Fit] = {}
    for number, body in bodies:
        count, checksum = sum_of(body, totals)
        for entry in table.index.get((number, count, checksum), ()):
            fit = _fit(entry, body.head, view, shapes)
            key = entry.architecture, entry.number
            if fit is not None and (key not in found or fit.certainty > found[key].certainty):
                found[key] = fit
    return [fit for fit in found.values() if named or _is_most(fit, given)]


def _is_most(fit: _Fit, given: Mapping[str, Shape]) -> bool:
    """Whether enough of the numbers in the file belong to the network."""
    total = sum(map(math.prod, given.values()))
    own = sum(math.prod(given[name]) for name in fit.view.bare.values())
    return total - own <= total * (FOREIGN_SHARE if fit.certainty == 2 else FOREIGN_SHARE_WITHOUT_HEAD)


def _fit(entry: Entry, path: str, view: View, shapes: Mapping[str, Shape]) -> _Fit | None:
    """The fit of an entry whose names outside of the head are those of the view, or None if the shapes differ."""
    below = f"{path}."
    own = {name: shape for name, shape in entry.shapes.items() if path and name.startswith(below)}
    theirs = {name: shape for name, shape in shapes.items() if path and name.startswith(below)}
    body = {name: shapes[name] for name in entry.shapes if name not in own}
    classes, channels = _ends(entry, shapes)
    expected = _expected(entry, classes, channels)
    if any(shape != expected[name] for name, shape in body.items()):
        return None
    names = body.keys() | theirs.keys()
    names |= {f"{name.removesuffix('running_mean')}{COUNTER}" for name in names if name.endswith("running_mean")}
    taken = View(view.prefix, {name: of_file for name, of_file in view.bare.items() if name in names})
    if theirs == {name: expected[name] for name in own}:
        return _Fit(entry, taken, Head(path, own=True) if path else None, classes, channels)
    if not theirs:
        return _Fit(entry, taken, Head(path, own=False), 0, channels)
    inputs = next((shape[1] for shape in own.values() if len(shape) == 2), 0)
    head = parse(path, {name.removeprefix(below): shape for name, shape in theirs.items()}, inputs)
    return None if head is None else _Fit(entry, taken, head, head.classes, channels)


def _expected(entry: Entry, classes: int, channels: int) -> dict[str, Shape]:
    """The shapes of an entry with other numbers of classes and input channels."""
    expected = dict(entry.shapes)
    for name in entry.ends.stems:
        first = expected[name]
        expected[name] = (first[0], channels, *first[2:])
    for name, multiple in entry.ends.classifiers.items():
        expected[name] = (classes * multiple, *expected[name][1:])
    return expected


def _ends(entry: Entry, given: Mapping[str, Shape]) -> tuple[int, int]:
    """The classes and input channels of the given shapes; where they do not tell, those of the entry."""
    classes, channels = 0, 0
    for name, multiple in islice(entry.ends.classifiers.items(), 1):
        shape = given.get(name, ())
        classes = shape[0] // multiple if shape else 0
    for name in entry.ends.stems[:1]:
        shape = given.get(name, ())
        channels = shape[1] if len(shape) == len(entry.shapes[name]) else 0
    return classes or entry.classes, channels or (entry.shapes[entry.ends.stems[0]][1] if entry.ends.stems else 3)


def _difference(entries: Sequence[Entry], given: Mapping[str, Shape]) -> tuple[float, str]:
    """The share of equal tensors of the nearest of some entries, and the first difference from it."""
    best = (-1.0, "")
    for view in islice(views(given), 3):
        shapes = _counted(view, given)
        for entry in entries:
            expected = _expected(entry, *_ends(entry, shapes))
            equal = sum(shapes.get(name) == shape for name, shape in expected.items())
            share = equal / max(len(expected), len(shapes))
            if share > best[0]:
                best = share, _first_difference(expected, shapes, view)
    return best


def _first_difference(expected: Mapping[str, Shape], given: Mapping[str, Shape], view: View) -> str:
    for name, shape in expected.items():
        if name not in given:
            return f"it has no tensor {view.prefix + name!r}"
        if given[name] != shape:
            return f"{view.bare[name]!r} has the shape {list(given[name])} instead of {list(shape)}"
    extra = next((name for name in given if name not in expected), None)
    return f"it has an unexpected tensor {view.bare[extra]!r}" if extra else "its tensors are complete"
