"""Kernels as bytes, in each of the formats, a run at a time."""

import json
import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from nern.tensorfile import to_bytes
from service.serving.predictors import Served
from service.serving.selection import Coordinate, Listed, Slices

Selection = Slices | Listed


def as_json(served: Served, selection: Selection) -> Iterator[bytes]:
    """One object, its list streamed."""
    yield b'{"kernels": ['
    separator = ""
    for coordinates, kernels in _rendered(served, selection):
        items = (_item(coordinate, weights) for coordinate, weights in zip(coordinates, kernels.tolist(), strict=True))
        yield (separator + ", ".join(items)).encode()
        separator = ", "
    yield b"]}"


def as_jsonl(served: Served, selection: Selection) -> Iterator[bytes]:
    """One kernel a line."""
    for coordinates, kernels in _rendered(served, selection):
        items = (_item(coordinate, weights) for coordinate, weights in zip(coordinates, kernels.tolist(), strict=True))
        yield "".join(item + "\n" for item in items).encode()


def as_raw(served: Served, selection: Selection) -> Iterator[bytes]:
    """float32 little-endian, kernel after kernel, each row-major."""
    for _, kernels in _rendered(served, selection):
        yield to_bytes(kernels)


def raw_layout(selection: Selection) -> tuple[str, int]:
    """What the raw format does not say, `countxheightxwidth` for each stretch of equal sizes, and its bytes."""
    shapes = selection.shapes()
    layout = ",".join("x".join(map(str, (count, *size))) for count, size in shapes)
    return layout, sum(4 * count * math.prod(size) for count, size in shapes)


def _rendered(served: Served, selection: Selection) -> Iterator[tuple[list[Coordinate], Tensor]]:
    for run in selection.runs():
        if len(run.numbers):
            channels = served.layers[run.layer].channels
            coordinates = [(run.layer, number // channels, number % channels) for number in run.numbers.tolist()]
            yield coordinates, served.kernels(run.layer, run.numbers).float()


def _item(coordinate: Coordinate, weights: list[Any]) -> str:
    return f'{{"coordinate": {json.dumps(coordinate)}, "weights": {json.dumps(weights)}}}'
