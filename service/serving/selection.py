"""Selections of kernels: which kernels a client asks for, and in which order."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from nern.layers import Layer
from service import problems

# Kernels that are rendered and written at a time. This limits the memory of an answer.
RUN_KERNELS = 4096

MAX_PARTS = 1000

Coordinate = tuple[int, int, int]


@dataclass(frozen=True)
class Run:
    """Consecutive kernels of an answer from one layer, by their indices in the layer (int64, (n,)); see `Served.kernels`."""

    layer: int
    indices: Tensor


class Slices:
    """All combinations of some layers, filters and channels, in the order that the client asked for.

    Each axis is the text of a query parameter, or None for all. Raises OutsideNetwork, and Invalid for malformed text.
    """

    def __init__(self, layers: Sequence[Layer], layer: str | None, filter: str | None, channel: str | None) -> None:
        self._layers = layers
        self._chosen = _indices("layer", layer, len(layers))
        self._filters = {n: _indices("filter", filter, layers[n].filters, n) for n in self._chosen}
        self._channels = {n: _indices("channel", channel, layers[n].channels, n) for n in self._chosen}

    def shapes(self) -> list[tuple[int, tuple[int, ...]]]:
        """Count and kernel size of each stretch of kernels of the same kernel size, in order."""
        counts = ((len(self._filters[n]) * len(self._channels[n]), self._layers[n].kernel_size) for n in self._chosen)
        return _merged(counts)

    def runs(self) -> Iterator[Run]:
        """The kernels in runs of at most RUN_KERNELS."""
        for layer in self._chosen:
            channels = torch.tensor(self._channels[layer])
            filters_at_a_time = max(1, RUN_KERNELS // max(1, len(channels)))
            for filters in torch.tensor(self._filters[layer]).split(filters_at_a_time):
                indices = filters[:, None] * self._layers[layer].channels + channels
                for part in indices.flatten().split(RUN_KERNELS):
                    yield Run(layer, part)


class Listed:
    """The kernels at a list of coordinates, in the order of the list. Raises OutsideNetwork."""

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
        """Count and kernel size of each stretch of kernels of the same kernel size, in order."""
        return _merged((1, self._layers[layer].kernel_size) for layer, _, _ in self._coordinates)

    def runs(self) -> Iterator[Run]:
        """The kernels in runs of at most RUN_KERNELS."""
        for layer, group in groupby(self._coordinates, key=lambda coordinate: coordinate[0]):
            channels = self._layers[layer].channels
            indices = torch.tensor([filter * channels + channel for _, filter, channel in group])
            for part in indices.split(RUN_KERNELS):
                yield Run(layer, part)


def _indices(axis: str, text: str | None, count: int, layer: int | None = None) -> list[int]:
    """The indices less than `count` that a text names: an integer, a slice `a:b`, or several of these, separated by commas."""
    if text is None:
        return list(range(count))
    parts = text.split(",")
    if len(parts) > MAX_PARTS:
        raise _malformed(axis, f"has more than {MAX_PARTS} parts; send the coordinates with POST")
    indices: list[int] = []
    for part in parts:
        if not (match := re.fullmatch(r"(\d{1,9})|(\d{0,9}):(\d{0,9})", part.strip(), re.ASCII)):
            raise _malformed(axis, f"{part!r} is neither an index nor a slice a:b")
        single, first, last = match.groups()
        start = int(single or first or 0)
        stop = start + 1 if single else int(last) if last else count
        if stop > count or start > count:
            where = "" if layer is None else f" of layer {layer}"
            raise problems.OutsideNetwork(
                f"{axis} {part.strip()} is outside the network, which has {count} {axis}s{where}, numbered from 0",
                coordinate={"axis": axis, "asked": part.strip(), "count": count, "layer": layer},
            )
        indices.extend(range(start, stop))
        if len(indices) > count:
            raise _malformed(axis, f"names a {axis} twice; send the coordinates with POST")
    if len(set(indices)) < len(indices):
        raise _malformed(axis, f"names a {axis} twice; send the coordinates with POST")
    return indices


def _outside(coordinate: Coordinate, what: str, count: int, plural: str, layer: int | None = None) -> problems.OutsideNetwork:
    where = "" if layer is None else f" of layer {layer}"
    return problems.OutsideNetwork(
        f"coordinate {list(coordinate)}: {what} is outside the network, which has {count} {plural}{where}, numbered from 0",
        coordinate=list(coordinate),
    )


def _malformed(axis: str, detail: str) -> problems.Invalid:
    return problems.Invalid(f"{axis}: {detail}", errors=[{"pointer": f"query:{axis}", "detail": detail}])


def _merged(counts: Iterator[tuple[int, tuple[int, ...]]]) -> list[tuple[int, tuple[int, ...]]]:
    """Counts and kernel sizes, with neighbours of the same kernel size added up."""
    merged: list[tuple[int, tuple[int, ...]]] = []
    for count, kernel_size in counts:
        if merged and merged[-1][1] == kernel_size:
            merged[-1] = (merged[-1][0] + count, kernel_size)
        elif count:
            merged.append((count, kernel_size))
    return merged
