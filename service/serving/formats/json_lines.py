"""The formats jsonl and ndjson: a line of JSON for each kernel. The two differ in their media types alone."""

from collections.abc import Iterator

from service.serving.formats.format import Format, Selection, as_json, rendered
from service.serving.predictors import Served


def write(served: Served, selection: Selection) -> Iterator[bytes]:
    """Yields the lines of each run."""
    for coordinates, kernels in rendered(served, selection):
        items = (as_json(coordinate, weights) for coordinate, weights in zip(coordinates, kernels.tolist(), strict=True))
        yield "".join(item + "\n" for item in items).encode()


JSONL = Format("jsonl", "application/jsonl", write)
NDJSON = Format("ndjson", "application/x-ndjson", write)
