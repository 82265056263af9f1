"""The table of facts about every architecture, so that no network has to be built to recognise one.

`table.json` has the variants of each architecture. `modules.txt` has the tensors: equal modules, such as the blocks of a
network, are there once, under a digest of their content. It is read only for an architecture whose names match; a line is found
by bisection. `python -m nern.architectures.tabulate` makes both files; each release has new ones.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

Shape = tuple[int, ...]

# What an output of a network is:
# logits         (N, classes)
# dense classes  (N, classes, height, width): the logits of each pixel
# features       (N, channels): a network without its last layer
# map            any other tensor with the batch first: boxes of a detector, tokens, feature maps
Kind = Literal["logits", "dense classes", "features", "map"]

# The number of the names in a set, and a sum of their checksums. Equal sets have equal sums. The sum of a part of the names is
# subtracted to leave that part out.
Sum = tuple[int, int]

DIGEST = 8  # characters

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Ends:
    """What the first and the last layers of a network are called, and what it takes and returns.

    stems: the weights of the first convolutions. Their second extent is the number of input channels.
    classifiers: the tensors whose first extent is a multiple of the number of classes, with that multiple.
    outputs: the kind of each output, by name, in the order in which the network returns them.
    frames: the number of frames of a video, or 0 for images.
    """

    stems: tuple[str, ...]
    classifiers: Mapping[str, int]
    outputs: Mapping[str, Kind]
    frames: int


@dataclass(frozen=True)
class Body:
    """How the names of a network are found among others: without those of its head, which may have been replaced.

    tops: the first components of all names that do not belong to the head.
    head: the path of the head, or an empty string if nothing can be in its place.
    """

    tops: frozenset[str]
    head: str


@dataclass(frozen=True)
class Entry:
    """One variant of an architecture, with its default number of classes. Counters of batch norms are left out.

    number: the number of the variant.
    rank: how likely a file is meant to be this architecture if the same tensors fit others too; 2 is the highest.
    usual_classes: the classes with which it is likely; with others, the rank is 0. Empty for any.
    image_size: the height and width of the images, in pixels.
    classes: the default number of classes, 0 for a network without classes.
    module: the digest of the whole network in `modules`.
    """

    architecture: str
    number: int
    rank: int
    usual_classes: tuple[int, ...]
    image_size: int
    classes: int
    ends: Ends
    module: str
    modules: "Modules"

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every tensor by name."""
        return {name: tuple(shape) for name, shape, _ in self._leaves(self.module, "")}

    @cached_property
    def groups(self) -> dict[str, int]:
        """The number of groups of every convolution, by the name of its weight."""
        return {name: groups for name, _, groups in self._leaves(self.module, "") if groups}

    def _leaves(self, module: str, prefix: str) -> Iterator[tuple[str, list[int], int]]:
        for child, content in self.modules[module].items():
            if isinstance(content, str):
                yield from self._leaves(content, f"{prefix}{child}.")
            elif content and isinstance(content[0], list):
                yield f"{prefix}{child}", content[0], content[1]
            else:
                yield f"{prefix}{child}", content, 0


class Modules:
    """The modules by digest: the children of each by name.

    A child is the digest of a module, the shape of a tensor, or the shape of a convolution's weight with the number of groups.
    """

    def __init__(self) -> None:
        self._read: dict[str, Mapping[str, Any]] = {}

    def __getitem__(self, digest: str) -> Mapping[str, Any]:
        if digest not in self._read:
            self._read[digest] = json.loads(self._line(digest.encode()))
        return self._read[digest]

    def _line(self, digest: bytes) -> bytes:
        """The content of the line of a digest. Lines are sorted."""
        low, high = 0, len(self._lines)
        while low < high:
            middle = (low + high) // 2
            start = self._lines.rfind(b"\n", low, middle) + 1 or low
            end = self._lines.index(b"\n", start)
            found = self._lines[start : start + DIGEST]
            if found == digest:
                return self._lines[start + DIGEST + 1 : end]
            low, high = (end + 1, high) if found < digest else (low, start)
        raise KeyError(digest.decode())

    @cached_property
    def _lines(self) -> bytes:
        return (FOLDER / "modules.txt").read_bytes()


@dataclass(frozen=True)
class Table:
    """All architectures.

    entries: the variants of each architecture, by its name.
    aliases: other names of the same function, which are names of architectures too.
    bodies: the ways to find names.
    index: the entries by the number of a body and the sum of the names of that body.
    """

    entries: Mapping[str, list[Entry]]
    aliases: Mapping[str, str]
    bodies: list[Body]
    index: Mapping[tuple[int, int, int], list[Entry]]


@cache
def read() -> Table:
    """The table of this release."""
    content = json.loads((FOLDER / "table.json").read_text())
    ends = [Ends(tuple(one["stems"]), one["classifiers"], one["outputs"], one.get("frames", 0)) for one in content["ends"]]
    modules = Modules()
    entries: dict[str, list[Entry]] = {}
    index: dict[tuple[int, int, int], list[Entry]] = defaultdict(list)
    for name, variants in content["architectures"].items():
        usual = tuple(content["usual_classes"].get(name, ()))
        entries[name] = []
        for number, (rank, size, classes, of_ends, module, sums) in enumerate(variants):
            entry = Entry(name, number, rank, usual, size, classes, ends[of_ends], module, modules)
            entries[name].append(entry)
            for body, count, checksum in sums:
                index[body, count, checksum].append(entry)
    bodies = [Body(frozenset(tops), head) for head, *tops in content["bodies"]]
    return Table(entries, content["aliases"], bodies, index)


def sums(names: Iterable[str]) -> dict[str, Sum]:
    """The sum of the names under each path, by path. A tensor outside of modules is its own path."""
    own: dict[str, list[int]] = {}
    for name in names:
        total = own.setdefault(name.rpartition(".")[0] or name, [0, 0])
        total[0] += 1
        total[1] += crc32(name.encode())
    totals: dict[str, Sum] = {}
    for path, (count, checksum) in own.items():
        while path:
            before = totals.get(path, (0, 0))
            totals[path] = before[0] + count, before[1] + checksum
            path = path.rpartition(".")[0]
    return totals


def sum_of(body: Body, totals: Mapping[str, Sum]) -> Sum:
    """The sum of the names of a body. `totals` has the sums of all names; every top of the body is there."""
    count, checksum = totals.get(body.head, (0, 0)) if body.head.partition(".")[0] in body.tops else (0, 0)
    return sum(totals[top][0] for top in body.tops) - count, sum(totals[top][1] for top in body.tops) - checksum
