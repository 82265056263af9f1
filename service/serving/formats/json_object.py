"""The format json: one JSON object with a list of kernels."""

from collections.abc import Iterator

from service.serving.formats.format import Format, Selection, as_json, rendered
from service.serving.predictors import Served


def write(served: Served, selection: Selection) -> Iterator[bytes]:
    """Yields the beginning of the object, the kernels of each run, and the end of the object."""
    yield b'{"kernels": ['
    separator = ""
    for coordinates, kernels in rendered(served, selection):
        items = (as_json(coordinate, weights) for coordinate, weights in zip(coordinates, kernels.tolist(), strict=True))
        yield (separator + ", ".join(items)).encode()
        separator = ", "
    yield b"]}"


JSON = Format("json", "application/json", write)
