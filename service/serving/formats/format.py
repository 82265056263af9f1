"""A format of kernels, and the rendered kernels that every format writes."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from service.serving.predictors import Served
from service.serving.selection import Coordinate, Listed, Slices

Selection = Slices | Listed


def no_headers(selection: Selection) -> Mapping[str, str]:
    """For formats that add no headers to an answer."""
    return {}


@dataclass(frozen=True)
class Format:
    """A way to write kernels as bytes.

    `write` yields the bytes, and renders the kernels of a run when its iterator is advanced. `headers` returns the headers that
    the answer has besides Content-Type, and raises NotAcceptable for kernels that the format can't hold.
    """

    name: str
    media_type: str
    write: Callable[[Served, Selection], Iterator[bytes]]
    headers: Callable[[Selection], Mapping[str, str]] = no_headers


def rendered(served: Served, selection: Selection) -> Iterator[tuple[list[Coordinate], Tensor]]:
    """Yields the kernels of a selection, run by run: the n coordinates, and the kernels in float32 (n, *kernel_size)."""
    for run in selection.runs():
        if len(run.indices):
            channels = served.layers[run.layer].channels
            coordinates = [(run.layer, index // channels, index % channels) for index in run.indices.tolist()]
            yield coordinates, served.kernels(run.layer, run.indices).float()


def as_json(coordinate: Coordinate, weights: list[Any]) -> str:
    """One kernel as a JSON object."""
    return f'{{"coordinate": {json.dumps(coordinate)}, "weights": {json.dumps(weights)}}}'
