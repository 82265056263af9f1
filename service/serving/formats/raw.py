"""raw: float32 little-endian, kernel after kernel, each row-major. A header says the kernels' layout."""

import math
from collections.abc import Iterator, Mapping

from nern.tensorfile import to_bytes
from service import problems
from service.serving.formats.format import Format, Selection, rendered
from service.serving.predictors import Served

# Clients and proxies limit the length of a header.
MAX_LAYOUT_CHARACTERS = 4096


def write(served: Served, selection: Selection) -> Iterator[bytes]:
    for _, kernels in rendered(served, selection):
        yield to_bytes(kernels)


def headers(selection: Selection) -> Mapping[str, str]:
    """`countxheightxwidth` for each stretch of kernels of equal size, and the bytes of all. Raises NotAcceptable."""
    shapes = selection.shapes()
    layout = ",".join("x".join(map(str, (count, *size))) for count, size in shapes)
    if len(layout) > MAX_LAYOUT_CHARACTERS:
        raise problems.NotAcceptable("the kernels' sizes change too often for the raw format; ask for jsonl")
    return {"X-Kernel-Shapes": layout, "Content-Length": str(sum(4 * count * math.prod(size) for count, size in shapes))}


RAW = Format("raw", "application/octet-stream", write, headers)
