"""The .npy format: one array. Arrays of Python objects, which are pickles, are never read."""

from io import BufferedIOBase
from tokenize import TokenError
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from service.inspection.datasets.arrays import AnyArray, Header
from service.inspection.datasets.found import bad, shown

MAGIC = npy.MAGIC_PREFIX

# An array is read in pieces of this many bytes, because a reader keeps a copy of what it reads at once.
PIECE_BYTES = 2**24

# The name that messages give to the array of a lone .npy file.
NAME = "array"


class NpyArray:
    """The array of a file in the .npy format, under NAME."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.names = [NAME]

    def header(self, name: str) -> Header:
        self._file.seek(0)
        return read_header(self._file, name)[0]

    def read(self, name: str) -> AnyArray:
        nbytes = self._file.seek(0, 2)
        self._file.seek(0)
        return read_array(self._file, name, nbytes)


def read_header(file: BinaryIO, name: str) -> tuple[Header, bool]:
    """The header at the start of a file, and whether the elements are in Fortran order. Raises Refusal and EOFError."""
    try:
        reader = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = reader(file)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError) as error:
        raise bad(f"`{shown(name)}` is no array in the .npy format; write the file with numpy.savez or numpy.save") from error
    return Header(dtype, shape), fortran


def read_array(file: BinaryIO, name: str, nbytes: int) -> AnyArray:
    """The array of a file of `nbytes` bytes. Raises Refusal and EOFError."""
    header, fortran = read_header(file, name)
    assert not header.dtype.hasobject
    held = nbytes - file.tell()
    if header.nbytes != held or min(header.shape, default=0) < 0:
        raise bad(f"`{shown(name)}` has {held} bytes of data, but its header announces {header.nbytes}; write the file again")
    data = np.empty(held, dtype=np.uint8)
    for start in range(0, held, PIECE_BYTES):
        piece = data[start : start + PIECE_BYTES]
        if cast(BufferedIOBase, file).readinto(piece.data) != len(piece):
            raise EOFError
    array: AnyArray = data.view(header.dtype).reshape(header.shape, order="F" if fortran else "C")
    native: Any = header.dtype.newbyteorder("=")
    return np.asarray(array, dtype=native, order="C")
