"""From the arrays of a file to a dataset: which arrays are taken, and what becomes of them."""

import numpy as np
import torch

from service.inspection.datasets import labels, pixels, roles
from service.inspection.datasets.arrays import AnyArray, Arrays, Header, described, narrowed
from service.inspection.datasets.found import Found, bad, listed, shown
from service.inspection.datasets.roles import Roles
from service.inspection.refusal import Refusal

MAX_INPUTS = 100
MAX_NAME_CHARACTERS = 200

# Lists of datasets hold the names of all classes.
MAX_CLASS_NAMES_CHARACTERS = 2**16

ADVICE = (
    "send `images` (N x H x W x C) and, if wanted, `labels` (N); or `inputs` (N x anything), or several as `inputs.NAME`, and, "
    "if wanted, `targets`"
)


def read(arrays: Arrays, max_bytes: int) -> Found:
    """The dataset that arrays make. Raises Refusal, also for arrays of more than `max_bytes` bytes together."""
    found_roles = roles.assign(arrays.names)
    if found_roles is None:
        names = listed(arrays.names) or "no arrays"
        raise bad(f"no array has a name that tells what it is (the file holds {names}); {ADVICE}")
    reader = _Reader(arrays, max_bytes)
    found = _inputs(reader, found_roles) if found_roles.inputs else _samples(reader, found_roles)
    _read_labels(reader, found_roles, found)
    _read_class_names(reader, found_roles, found)
    if others := [name for name in arrays.names if name not in reader.taken]:
        found.notes.append(f"Not needed, and ignored: {listed(others)}.")
    if found_roles.split and len({roles.split_of(name) for name in arrays.names} - {""}) > 1:
        found.notes.append(
            f"Of the parts of the data, {found_roles.split!r} was taken. To use another one, send it as a dataset of its own."
        )
    if sum(tensor.nbytes for tensor in found.tensors.values()) > max_bytes:
        raise bad(f"the arrays have more than {max_bytes} bytes as they are stored; send fewer rows, or uint8")
    return found


class _Reader:
    """Reads arrays while the sum of their sizes allows."""

    def __init__(self, arrays: Arrays, max_bytes: int) -> None:
        self.taken: list[str] = []
        self._arrays = arrays
        self._max_bytes = max_bytes
        self._nbytes = 0

    @property
    def names(self) -> list[str]:
        return self._arrays.names

    def header(self, name: str) -> Header:
        return self._arrays.header(name)

    def read(self, name: str) -> AnyArray:
        header = self.header(name)
        if header.dtype.hasobject:
            raise bad(f"{described(shown(name), header)} holds Python objects, which are pickles and are not read; {ADVICE}")
        self._nbytes += header.nbytes
        if self._nbytes > self._max_bytes:
            raise bad(f"the arrays have more than {self._max_bytes} bytes unpacked; send fewer or smaller images")
        self.taken.append(name)
        return self._arrays.read(name)


def _samples(reader: _Reader, found_roles: Roles) -> Found:
    """Images, or inputs if the name of the array promises nothing and its values are no pixels."""
    name = found_roles.images
    assert name is not None
    array = reader.read(name)
    found = Found("images")
    try:
        found.tensors["images"] = torch.from_numpy(pixels.convert(shown(name), array, found.notes))
    except Refusal as refusal:
        if not found_roles.anything or array.dtype == np.uint8:
            raise
        found = Found("inputs", {"inputs.inputs": _input(name, array)})
        found.notes.append(f"`{shown(name)}` was taken as inputs, which are not normalised: {refusal.detail.split(';')[0]}.")
        return found
    if found_roles.anything:
        found.notes.append(f"`{shown(name)}` was taken as images. If it holds none, call it `inputs`.")
    return found


def _inputs(reader: _Reader, found_roles: Roles) -> Found:
    if len(found_roles.inputs) > MAX_INPUTS:
        raise bad(f"the file has {len(found_roles.inputs)} inputs, more than {MAX_INPUTS}")
    if twice := [name for name in reader.names if roles.is_input(name) and name not in found_roles.inputs.values()]:
        raise bad(f"`{shown(twice[0])}` is one of two arrays for the same input; give each input a name of its own")
    found = Found("inputs")
    for key, name in found_roles.inputs.items():
        if not key.isprintable() or len(key) > MAX_NAME_CHARACTERS:
            raise bad(f"`{shown(name)}` has a name that is too long or not printable; {ADVICE}")
        found.tensors[f"inputs.{key}"] = _input(name, reader.read(name))
    rows = {name: len(found.tensors[f"inputs.{key}"]) for key, name in found_roles.inputs.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"`{shown(name)}` {count}" for name, count in list(rows.items())[:5])
        raise bad(f"the inputs differ in their numbers of rows ({counts}); send the same number of rows for each")
    return found


def _input(name: str, array: AnyArray) -> torch.Tensor:
    """An input as a tensor: floats as float32, integers and booleans as they are, if torch has their dtype. Raises Refusal."""
    shape = described(shown(name), array)
    if not array.ndim or 0 in array.shape:
        raise bad(f"{shape} has no rows or no values; send N x anything")
    if array.dtype.kind not in "biuf":
        raise bad(f"{shape} has a dtype that inputs can't have; send float32 or integers")
    if array.dtype.kind == "f":
        array = narrowed(shown(name), array)
    elif array.dtype.kind == "u" and array.dtype.itemsize > 1:
        if array.max() > np.iinfo(np.int64).max:
            raise bad(f"{shape} holds numbers that int64 can't hold; send smaller numbers")
        array = array.astype(np.int32 if array.dtype == np.uint16 else np.int64)
    return torch.from_numpy(array)


def _read_labels(reader: _Reader, found_roles: Roles, found: Found) -> None:
    rows = len(next(iter(found.tensors.values())))
    names = found_roles.labels
    if roles.NUMBERED.fullmatch(found_roles.images or ""):
        names = [name for name in names if labels.fits(reader.header(name), rows)]
    if not names:
        return
    name = names[0]
    read = labels.convert(shown(name), reader.read(name), rows, found.notes, values=roles.may_be_values(name))
    found.labels, found.classes = read.kind, read.classes
    found.tensors["labels" if read.kind == "classes" else "targets"] = torch.from_numpy(read.array)
    if read.names:
        set_class_names(found, read.names)


def _read_class_names(reader: _Reader, found_roles: Roles, found: Found) -> None:
    """The names of classes, if the file has an array of texts that fits the labels."""
    name = found_roles.class_names
    if name is None or found.classes is None or found.class_names is not None:
        return
    header = reader.header(name)
    if header.dtype.kind not in "US" or len(header.shape) != 1 or header.shape[0] < found.classes:
        return
    array = reader.read(name)
    set_class_names(found, [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in array.tolist()])


def set_class_names(found: Found, names: list[str]) -> None:
    """Sets the names of the classes, unless they are too long together."""
    if sum(map(len, names)) > MAX_CLASS_NAMES_CHARACTERS:
        found.notes.append(
            f"The class names have more than {MAX_CLASS_NAMES_CHARACTERS} characters together: they were left out."
        )
    else:
        found.class_names = ["".join(character for character in name if character.isprintable()) for name in names]
