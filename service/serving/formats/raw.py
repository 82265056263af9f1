"""The format raw: the kernels one after the other, each in row-major order, as little-endian float32.

The header X-Kernel-Shapes says where a kernel begins and ends.
"""

import math
from collections.abc import Iterator, Mapping

from nern.tensorfile import to_bytes
from service import problems
from service.serving.formats.format import Format, Selection, rendered
from service.serving.predictors import Served

# Clients and proxies limit the length of a header.
MAX_LAYOUT_CHARACTERS = 4096


def write(served: Served, selection: Selection) -> Iterator[bytes]:
    """Yields the weights of each run."""
    for _, kernels in rendered(served, selection):
        yield to_bytes(kernels)


def headers(selection: Selection) -> Mapping[str, str]:
    """X-Kernel-Shapes and Content-Length. Raises NotAcceptable if X-Kernel-Shapes would be too long.

    X-Kernel-Shapes has an item `COUNTxHEIGHTxWIDTH` (or more or fewer extents) for each stretch of kernels of equal size.
    """
    shapes = selection.shapes()
    layout = ",".join("x".join(map(str, (count, *kernel_size))) for count, kernel_size in shapes)
    if len(layout) > MAX_LAYOUT_CHARACTERS:
        raise problems.NotAcceptable("the kernel size changes too often for the format raw; ask for jsonl")
    nbytes = sum(4 * count * math.prod(kernel_size) for count, kernel_size in shapes)
    return {"X-Kernel-Shapes": layout, "Content-Length": str(nbytes)}


RAW = Format("raw", "application/octet-stream", write, headers)
