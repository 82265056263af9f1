"""Reads checkpoints that numpy.savez or numpy.save wrote: arrays by name, or one array of objects that holds a dict."""

import math
from io import BytesIO
from tokenize import TokenError
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from torch import Tensor

from nern.stubs import Stub
from service.inspection.archives import Archive
from service.inspection.budget import Budget
from service.inspection.plans import tensor_from_numpy
from service.inspection.refusal import Refusal
from service.inspection.torch_files import unpickled
from service.inspection.tree import Content, plant

MAGIC = npy.MAGIC_PREFIX

# The arrays of a dataset, under the names that datasets have.
DATASET_NAMES = {"images", "labels", "inputs", "x_train", "y_train", "x_test", "y_test"}


def is_archive(archive: Archive) -> bool:
    """Whether an archive holds arrays and nothing else."""
    return bool(archive.names) and all(name.endswith(".npy") for name in archive.names)


def read_archive(archive: Archive, nbytes: int) -> Content:
    """The arrays of an .npz archive in a file of `nbytes` bytes, by name. Raises Refusal, also for a dataset."""
    names = {name.removesuffix(".npy"): name for name in archive.names}
    if names.keys() & DATASET_NAMES:
        raise Refusal("not-a-checkpoint", "the file is a dataset, not a checkpoint; upload it with POST /v1/datasets")
    budget = Budget(nbytes)
    archive.validate_sizes(archive.names, budget.nbytes)
    budget.spend(len(names))
    arrays = {}
    for name, member in names.items():
        data = archive.read(member, stored=False)
        arrays[name] = _read(BytesIO(data), len(data), budget)
    return plant(arrays, budget)


def read_array(file: BinaryIO, nbytes: int) -> Content:
    """The content of an .npy file of `nbytes` bytes. Raises Refusal."""
    file.seek(0)
    budget = Budget(nbytes)
    return plant(_read(file, nbytes, budget), budget)


def _read(file: BinaryIO, nbytes: int, budget: Budget) -> object:
    """The tensor of an .npy file, or what its pickle holds if the array is one of objects."""
    try:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
    except (ValueError, TypeError, SyntaxError, TokenError) as error:
        raise Refusal("not-a-checkpoint", "an array has no header of the .npy format; write the file again") from error
    if dtype.hasobject:
        return unpickled(file, nbytes, budget)
    if dtype.kind not in "biufc" or dtype.itemsize not in (1, 2, 4, 8, 16):
        return Stub("numpy.ndarray")
    announced, held = math.prod(shape) * dtype.itemsize, nbytes - file.tell()
    if announced > held:
        raise Refusal("truncated-file", f"an array has {held} bytes of data, but its header announces {announced}")
    return _tensor(file.read(announced), dtype, shape, fortran)


def _tensor(data: bytes, dtype: "np.dtype[np.generic]", shape: tuple[int, ...], fortran: bool) -> Tensor:
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return tensor_from_numpy(np.asarray(array, dtype.newbyteorder("=")))
