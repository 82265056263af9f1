"""Selections of kernels: which kernels a client asks for, and in which order."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
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
    """The kernels at the coordinates in an array of integers, (n, 3), in its order. Raises OutsideNetwork."""

    def __init__(self, layers: Sequence[Layer], coordinates: NDArray[np.int32]) -> None:
        layer, filter, channel = coordinates.T
        filters = np.array([each.filters for each in layers], np.int32).take(layer, mode="clip")
        channels = np.array([each.channels for each in layers], np.int32).take(layer, mode="clip")
        inside = (layer >= 0) & (layer < len(layers))
        inside &= (filter >= 0) & (filter < filters) & (channel >= 0) & (channel < channels)
        if not inside.all():
            raise _first_fault(layers, *coordinates[inside.argmin()].tolist())
        self._layers = layers
        self._coordinates = coordinates

    def shapes(self) -> list[tuple[int, tuple[int, ...]]]:
        """Count and kernel size of each stretch of kernels of the same kernel size, in order."""
        return _merged((stop - start, self._layers[layer].kernel_size) for layer, start, stop in self._stretches())

    def runs(self) -> Iterator[Run]:
        """The kernels in runs of at most RUN_KERNELS."""
        for layer, start, stop in self._stretches():
            for first in range(start, stop, RUN_KERNELS):
                part = torch.from_numpy(self._coordinates[first : min(first + RUN_KERNELS, stop), 1:]).long()
                yield Run(layer, part[:, 0] * self._layers[layer].channels + part[:, 1])

    def _stretches(self) -> Iterator[tuple[int, int, int]]:
        """Each stretch of kernels of one layer, in order: the layer, and the first and the last kernel (half-open)."""
        layer = self._coordinates[:, 0]
        if len(layer):
            starts = np.flatnonzero(np.diff(layer)) + 1
            for start, stop in pairwise(map(int, (0, *starts, len(layer)))):
                yield int(layer[start]), start, stop


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


def _first_fault(layers: Sequence[Layer], layer: int, filter: int, channel: int) -> problems.OutsideNetwork:
    """The problem of a coordinate that is outside of the network."""
    coordinate = (layer, filter, channel)
    if not 0 <= layer < len(layers):
        return _outside(coordinate, f"layer {layer}", len(layers), "layers")
    if not 0 <= filter < layers[layer].filters:
        return _outside(coordinate, f"filter {filter}", layers[layer].filters, "filters", layer)
    return _outside(coordinate, f"channel {channel}", layers[layer].channels, "channels", layer)


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
