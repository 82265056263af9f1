"""Arrays by name, whatever file they are in."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from service.inspection.datasets.found import bad

AnyArray = npt.NDArray[Any]

# Work on an array is done for this many elements at a time, because its temporary results need memory of their own.
PART_ELEMENTS = 2**22


@dataclass(frozen=True)
class Header:
    """The dtype and the shape of an array."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Arrays(Protocol):
    """The arrays of a file. `header` and `read` take a name from `names`, and raise Refusal if the array is damaged.

    `read` returns a C-contiguous array in the byte order of the machine. It may be called only for a dtype without Python
    objects.
    """

    @property
    def names(self) -> list[str]: ...

    def header(self, name: str) -> Header: ...

    def read(self, name: str) -> AnyArray: ...


def parts(array: AnyArray) -> Iterator[AnyArray]:
    """The elements of a C-contiguous array, as views of one dimension and at most PART_ELEMENTS elements."""
    flat = array.reshape(-1)
    for start in range(0, len(flat), PART_ELEMENTS):
        yield flat[start : start + PART_ELEMENTS]


def extremes(array: AnyArray) -> tuple[Any, Any]:
    """The smallest and the largest element, as Python numbers. Any NaN makes both NaN."""
    return array.min().item(), array.max().item()


def finite(array: AnyArray) -> bool:
    """Whether no element is NaN or infinite."""
    return array.dtype.kind != "f" or all(bool(np.isfinite(part).all()) for part in parts(array))


def narrowed(name: str, array: AnyArray) -> AnyArray:
    """Real numbers as float32. Raises Refusal for NaN, infinity, and numbers that float32 can't hold."""
    if not finite(array):
        raise bad(f"{described(name, array)} holds NaN or infinity; send finite numbers")
    low, high = extremes(array)
    if max(-low, high) > float(np.finfo(np.float32).max):
        raise bad(f"{described(name, array)} ranges from {low:g} to {high:g}, which float32 can't hold; send smaller numbers")
    return array.astype(np.float32, copy=False)


def described(name: str, header: Header | AnyArray) -> str:
    """An array in a message: `images` (float32 of shape [4, 8])."""
    return f"`{name}` ({header.dtype} of shape {list(header.shape)})"
