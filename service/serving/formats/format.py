"""What a format is, and the rendered kernels that every format writes."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from service.serving.predictors import Served
from service.serving.selection import Coordinate, Listed, Slices

Selection = Slices | Listed


def no_headers(selection: Selection) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Format:
    """A way to write kernels as bytes.

    `write` renders the kernels run by run while its iterator is advanced. `headers` says what the answer's headers add; it
    raises NotAcceptable for kernels that the format can't hold.
    """

    name: str
    media_type: str
    write: Callable[[Served, Selection], Iterator[bytes]]
    headers: Callable[[Selection], Mapping[str, str]] = no_headers


def rendered(served: Served, selection: Selection) -> Iterator[tuple[list[Coordinate], Tensor]]:
    """The kernels of a selection in float32, a run at a time: their coordinates, and the kernels (n, *size)."""
    for run in selection.runs():
        if len(run.numbers):
            channels = served.layers[run.layer].channels
            coordinates = [(run.layer, number // channels, number % channels) for number in run.numbers.tolist()]
            yield coordinates, served.kernels(run.layer, run.numbers).float()


def as_json(coordinate: Coordinate, weights: list[Any]) -> str:
    """One kernel as a JSON object."""
    return f'{{"coordinate": {json.dumps(coordinate)}, "weights": {json.dumps(weights)}}}'
