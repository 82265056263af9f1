"""Which kernels a client asks for, and in which order."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from nern.layers import Layer
from service import problems

# Kernels handled at a time; bounds the memory of an answer.
RUN_KERNELS = 4096

MAX_PARTS = 1000

Coordinate = tuple[int, int, int]


@dataclass(frozen=True)
class Run:
    """Consecutive kernels of an answer that lie in one layer, by their numbers in it (int64, (n,))."""

    layer: int
    numbers: Tensor


class Slices:
    """All combinations of some layers, filters and channels, in the order asked for; None stands for all."""

    def __init__(self, layers: Sequence[Layer], layer: str | None, filter: str | None, channel: str | None) -> None:
        self._layers = layers
        self._chosen = _numbers("layer", layer, len(layers))
        self._filters = {n: _numbers("filter", filter, layers[n].filters, n) for n in self._chosen}
        self._channels = {n: _numbers("channel", channel, layers[n].channels, n) for n in self._chosen}

    def shapes(self) -> list[tuple[int, tuple[int, ...]]]:
        """How many kernels of which size come one after the other."""
        counts = ((len(self._filters[n]) * len(self._channels[n]), self._layers[n].kernel_size) for n in self._chosen)
        return _merged(counts)

    def runs(self) -> Iterator[Run]:
        for layer in self._chosen:
            channels = torch.tensor(self._channels[layer])
            a_time = max(1, RUN_KERNELS // max(1, len(channels)))
            for filters in torch.tensor(self._filters[layer]).split(a_time):
                numbers = filters[:, None] * self._layers[layer].channels + channels
                for part in numbers.flatten().split(RUN_KERNELS):
                    yield Run(layer, part)


class Listed:
    """Coordinates in any order."""

    def __init__(self, layers: Sequence[Layer], coordinates: Sequence[Coordinate]) -> None:
        for layer, filter, channel in coordinates:
            if not 0 <= layer < len(layers):
                raise _outside((layer, filter, channel), f"layer {layer}", len(layers), "layers")
            if not 0 <= filter < layers[layer].filters:
                raise _outside((layer, filter, channel), f"filter {filter}", layers[layer].filters, "filters", layer)
            if not 0 <= channel < layers[layer].channels:
                raise _outside((layer, filter, channel), f"channel {channel}", layers[layer].channels, "channels", layer)
        self._layers = layers
        self._coordinates = coordinates

    def shapes(self) -> list[tuple[int, tuple[int, ...]]]:
        """How many kernels of which size come one after the other."""
        return _merged((1, self._layers[layer].kernel_size) for layer, _, _ in self._coordinates)

    def runs(self) -> Iterator[Run]:
        for layer, group in groupby(self._coordinates, key=lambda coordinate: coordinate[0]):
            channels = self._layers[layer].channels
            numbers = torch.tensor([filter * channels + channel for _, filter, channel in group])
            for part in numbers.split(RUN_KERNELS):
                yield Run(layer, part)


def _numbers(axis: str, text: str | None, count: int, layer: int | None = None) -> list[int]:
    """`3`, `a:b`, or a comma list of those, as numbers below `count`."""
    if text is None:
        return list(range(count))
    parts = text.split(",")
    if len(parts) > MAX_PARTS:
        raise _malformed(axis, f"has more than {MAX_PARTS} parts; send the coordinates with POST")
    numbers: list[int] = []
    for part in parts:
        if not (match := re.fullmatch(r"(\d{1,9})|(\d{0,9}):(\d{0,9})", part.strip(), re.ASCII)):
            raise _malformed(axis, f"{part!r} is neither an integer nor a slice a:b")
        single, first, last = match.groups()
        start = int(single or first or 0)
        stop = start + 1 if single else int(last) if last else count
        if stop > count or start > count:
            where = "" if layer is None else f" of layer {layer}"
            raise problems.OutsideNetwork(
                f"{axis} {part.strip()} is outside the network: there are {count} {axis}s{where}, numbered from 0",
                coordinate={"axis": axis, "asked": part.strip(), "count": count, "layer": layer},
            )
        numbers.extend(range(start, stop))
        if len(numbers) > count:
            raise _malformed(axis, "names something twice; send the coordinates with POST")
    if len(set(numbers)) < len(numbers):
        raise _malformed(axis, "names something twice; send the coordinates with POST")
    return numbers


def _outside(coordinate: Coordinate, what: str, count: int, plural: str, layer: int | None = None) -> problems.OutsideNetwork:
    where = "" if layer is None else f" of layer {layer}"
    return problems.OutsideNetwork(
        f"coordinate {list(coordinate)}: {what} is outside the network: there are {count} {plural}{where}, numbered from 0",
        coordinate=list(coordinate),
    )


def _malformed(axis: str, detail: str) -> problems.Invalid:
    return problems.Invalid(f"{axis}: {detail}", errors=[{"pointer": f"query:{axis}", "detail": detail}])


def _merged(counts: Iterator[tuple[int, tuple[int, ...]]]) -> list[tuple[int, tuple[int, ...]]]:
    merged: list[tuple[int, tuple[int, ...]]] = []
    for count, size in counts:
        if merged and merged[-1][1] == size:
            merged[-1] = (merged[-1][0] + count, size)
        elif count:
            merged.append((count, size))
    return merged
