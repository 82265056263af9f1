"""Labels: the class of each row, classes at each place of a row, or values."""

from dataclasses import dataclass

import numpy as np

from service.inspection.datasets.arrays import AnyArray, Header, described, extremes, narrowed, parts
from service.inspection.datasets.found import LabelKind, bad

# Real datasets have far fewer classes. A larger label is a mistake.
MAX_CLASSES = 100_000

# What masks of segmentations hold where there is no class, if they are uint8. It is stored as NO_CLASS.
IGNORED = 255
NO_CLASS = -1

ADVICE = (
    "send `labels` as one class number from 0 for each row (integers, N), or `targets` with a class at each place (integers, "
    "N x H x W) or with values (float32, N x anything)"
)


@dataclass(frozen=True)
class Labels:
    """Labels of N rows. `array` is int64 (N) for classes, integers (N x anything) for dense classes, float32 for values."""

    kind: LabelKind
    array: AnyArray
    classes: int | None = None
    names: list[str] | None = None


def fits(header: Header, rows: int) -> bool:
    """Whether an array may be the labels of so many rows, if its name does not tell."""
    return header.dtype.kind in "biuUS" and header.shape in ((rows,), (rows, 1))


def convert(name: str, array: AnyArray, rows: int, notes: list[str], *, values: bool) -> Labels:
    """The labels in an array. Adds to `notes` what was changed.

    `values` tells that the name allows whole floating-point numbers that are no classes. Raises Refusal.
    """
    if array.ndim == 2 and 1 in array.shape and array.size == rows:
        if rows > 1:
            notes.append(f"`{name}` of shape {list(array.shape)} was read as {rows} labels.")
        array = array.reshape(rows)
    if not array.ndim or len(array) != rows or 0 in array.shape:
        raise bad(f"{described(name, array)} does not fit {rows} rows; {ADVICE}")
    if array.dtype.kind in "US" and array.ndim == 1:
        return _named(name, array, notes)
    if array.dtype.kind not in "biuf":
        raise bad(f"{described(name, array)} has a dtype that labels can't have; {ADVICE}")
    if array.ndim == 2 and array.shape[1] > 1 and _zeros_and_ones(array):
        return _columns(name, array, notes, values=values)
    if array.dtype.kind == "f":
        whole = array.ndim == 1 and not values and bool((array == np.rint(array)).all())
        if not whole:
            return Labels("values", narrowed(name, array))
        notes.append(f"`{name}` is {array.dtype}, but holds whole numbers: they are class numbers. Send values as `targets`.")
    return _classes(name, array, notes) if array.ndim == 1 else _dense(name, array, notes)


def _named(name: str, array: AnyArray, notes: list[str]) -> Labels:
    """Classes that are given by their names."""
    texts = np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array
    names, numbers = np.unique(texts, return_inverse=True)
    if len(names) > MAX_CLASSES:
        raise bad(f"{described(name, array)} has {len(names)} different texts, more than {MAX_CLASSES} classes; {ADVICE}")
    notes.append(f"`{name}` holds texts: the classes are its {len(names)} different texts in alphabetical order.")
    return Labels("classes", numbers.reshape(-1).astype(np.int64), len(names), names.tolist())


def _columns(name: str, array: AnyArray, notes: list[str], *, values: bool) -> Labels:
    """A column for each class, with zeros and ones."""
    ones = array.sum(1, dtype=np.int64)
    if array.dtype.kind == "f" and values:
        return Labels("values", array.astype(np.float32))
    if bool((ones == 1).all()):
        notes.append(f"`{name}` of shape {list(array.shape)} has a single 1 in each row: its column is the class.")
        return Labels("classes", array.argmax(1).astype(np.int64), array.shape[1])
    notes.append(f"The rows of `{name}` belong to no or several of {array.shape[1]} classes: they were kept as values.")
    return Labels("values", array.astype(np.float32))


def _classes(name: str, array: AnyArray, notes: list[str]) -> Labels:
    low, high = extremes(array)
    _validate_range(name, array, low, high, least=0)
    if low > 0:
        notes.append(f"No label of `{name}` is 0: the smallest is {low:g}. Classes are counted from 0.")
    return Labels("classes", array.astype(np.int64), int(high) + 1)


def _dense(name: str, array: AnyArray, notes: list[str]) -> Labels:
    """Classes at each place of a row. An axis of one channel is left out."""
    if array.ndim == 4 and array.dtype == np.uint8 and (3 in (array.shape[1], array.shape[3]) or array.shape[3] == 4):
        advice = "send them as float32, with the layout and the scale of the network's output"
        raise bad(f"{described(name, array)} looks like images; {advice}")
    if array.ndim > 2 and (axis := next((axis for axis in (1, array.ndim - 1) if array.shape[axis] == 1), 0)):
        notes.append(f"`{name}` of shape {list(array.shape)} has one channel, which was left out.")
        array = array.squeeze(axis)
    array = array.view(np.uint8) if array.dtype == np.bool_ else array
    low, high = extremes(array)
    below = max(_largest(part[part != IGNORED]) for part in parts(array))
    ignored = high == IGNORED and 0 <= below < IGNORED - 1
    if ignored:
        notes.append(f"{IGNORED} in `{name}` was taken for places without a class.")
        high = below
    _validate_range(name, array, low, high, least=NO_CLASS)
    small, middle = low >= 0 and high < 2**8 and not ignored, high < 2**15
    stored = np.empty(array.shape, np.uint8 if small else np.int16 if middle else np.int32)
    for source, target in zip(parts(array), parts(stored), strict=True):
        target[:] = source
        if ignored:
            target[source == IGNORED] = NO_CLASS
    return Labels("dense classes", stored, int(high) + 1)


def _largest(part: AnyArray) -> int:
    return int(part.max()) if part.size else NO_CLASS


def _validate_range(name: str, array: AnyArray, low: float, high: float, *, least: int) -> None:
    if low < least or high >= MAX_CLASSES:
        raise bad(
            f"`{name}` ranges from {low:g} to {high:g}; class numbers range from {least} to {MAX_CLASSES - 1}"
            f"{', and -1 stands for no class' if least < 0 else ''}; {ADVICE}"
        )


def _zeros_and_ones(array: AnyArray) -> bool:
    return all(bool(((part == 0) | (part == 1)).all()) for part in parts(array))
