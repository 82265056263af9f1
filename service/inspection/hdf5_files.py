"""Reads the weights that Keras keeps in HDF5 files: `.weights.h5` and `.h5`, and `model.weights.h5` in `.keras` archives."""

import math
import struct
import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

import numpy as np
from pyfive import Dataset, File, Group, h5d
from pyfive.core import UNDEFINED_ADDRESS
from torch import Tensor

from service.inspection.archives import Archive
from service.inspection.budget import Budget
from service.inspection.plans import tensor_from_numpy
from service.inspection.refusal import Refusal
from service.inspection.tree import Content

MAGIC = b"\x89HDF\r\n\x1a\n"

# The member of a `.keras` archive that holds the weights.
MEMBER = "model.weights.h5"

# Groups that hold no weights of the network, although their arrays have the same shapes.
LEFT_OUT = {"optimizer", "optimizer_weights"}

MAX_DEPTH = 32

# The largest networks have some thousand. A link may lead to an array that another link has led to.
MAX_ARRAYS = 8000

# A read of so many bytes costs one operation of the budget.
BLOCK_BYTES = 1024

# The layout of an array whose data are one piece of the file, by its number in the format.
CONTIGUOUS = 1

# pyfive writes its version to its log, and reads a file for that. The inspecting process may open none.
h5d.version = str


def is_keras(archive: Archive) -> bool:
    """Whether an archive is a `.keras` file."""
    return MEMBER in archive.names


def read_keras(archive: Archive, nbytes: int) -> Content:
    """The weights in a `.keras` archive of `nbytes` bytes. Raises Refusal."""
    archive.validate_sizes([MEMBER], Budget(nbytes).nbytes)
    member = archive.read(MEMBER, stored=False)
    return read(BytesIO(member), len(member))


def read(file: BinaryIO, nbytes: int) -> Content:
    """The arrays in an HDF5 file of `nbytes` bytes, by their paths in the file. Raises Refusal.

    Arrays stay as they are stored: Keras stores a kernel as height x width x input channels x output channels.
    """
    _validate_end(file, nbytes)
    budget = Budget(nbytes)
    tree: dict[str, Tensor] = {}
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = File(_Metered(file, budget))
        for name in root:
            if name in LEFT_OUT:
                notes.append(f"{name!r} was left out: it holds the state of the optimizer")
                continue
            for path, dataset in _datasets(root, name, budget, (id(root._dataobjects),)):
                if len(tree) + len(notes) == MAX_ARRAYS:
                    raise Refusal("too-demanding", f"the HDF5 file has more than {MAX_ARRAYS} arrays")
                if (tensor := _tensor(root, path, dataset, budget)) is None:
                    notes.append(f"{path!r} was left out: it holds no numbers")
                else:
                    tree[path] = tensor
    return Content(tree, notes)


class _Metered:
    """A file whose reads are taken from a budget. It has no descriptor, so pyfive neither maps the file nor opens it again."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self._file = file
        self._budget = budget
        self.path = ""
        self.closed = False

    def read(self, nbytes: int = -1) -> bytes:
        data = self._file.read(nbytes)
        self._budget.spend(1 + len(data) // BLOCK_BYTES)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _validate_end(file: BinaryIO, nbytes: int) -> None:
    """Raises Refusal if the file is shorter than its first block (the superblock) says."""
    file.seek(0)
    start = file.read(64)
    if len(start) == 64:
        # The format specification of HDF5, section II.A: where the address of the end stands in each version.
        (end,) = struct.unpack_from("<Q", start, {0: 40, 1: 44}.get(start[len(MAGIC)], 28))
        if nbytes >= end:
            return
    raise Refusal("truncated-file", "the HDF5 file ends too early; upload it again")


def _datasets(
    group: Group, name: str, budget: Budget, above: tuple[int, ...], prefix: str = ""
) -> Iterator[tuple[str, Dataset]]:
    """The path of every dataset at or below a member of a group, and the dataset. `above` has the groups around the member."""
    budget.spend(1)
    path = f"{prefix}{name}"
    if len(above) > MAX_DEPTH:
        raise Refusal("too-demanding", f"the HDF5 file has more than {MAX_DEPTH} groups inside each other")
    member = group.get_lazy_view(name)
    if isinstance(member, Dataset):
        yield path, member
    elif isinstance(member, Group):
        if (place := id(member._dataobjects)) in above:
            raise Refusal("not-a-checkpoint", f"the group {path!r} of the HDF5 file contains itself; write the file again")
        for inner in member:
            yield from _datasets(member, inner, budget, (*above, place), f"{path}/")


def _tensor(root: File, path: str, dataset: Dataset, budget: Budget) -> Tensor | None:
    """The tensor of a dataset, or None if the file holds no numbers for it."""
    dtype = dataset.dtype
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biufc" or dtype.itemsize not in (1, 2, 4, 8, 16):
        return None
    shape = tuple(dataset.shape)
    nbytes = math.prod(shape) * dtype.itemsize
    budget.reserve(nbytes)
    if dataset.chunks:
        budget.spend(math.prod(-(-extent // chunk) for extent, chunk in zip(shape, dataset.chunks, strict=True)))
    if dataset.id.layout_class != CONTIGUOUS:
        return tensor_from_numpy(np.asarray(dataset[()], dtype.newbyteorder("=")))
    # pyfive fills up what is missing at the end of a file, and mixes up the rows of some arrays of more than 4 MiB.
    if dataset.id.data_offset == UNDEFINED_ADDRESS:
        return None
    root._fh.seek(dataset.id.data_offset)
    data = root._fh.read(nbytes)
    if len(data) < nbytes:
        raise Refusal("truncated-file", f"the HDF5 file ends inside {path!r}; upload it again")
    return tensor_from_numpy(np.asarray(np.frombuffer(data, dtype).reshape(shape), dtype.newbyteorder("=")))
