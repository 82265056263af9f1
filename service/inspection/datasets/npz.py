"""The .npz format: a zip archive of .npy files, one for each array."""

import zipfile
from typing import BinaryIO, cast

from service.inspection.datasets import npy
from service.inspection.datasets.arrays import AnyArray, Header

SUFFIX = ".npy"


class NpzArrays:
    """The arrays of an archive. Members without the suffix are not among them."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = [name.removesuffix(SUFFIX) for name in archive.namelist() if name.endswith(SUFFIX)]

    def header(self, name: str) -> Header:
        with self._archive.open(name + SUFFIX) as member:
            return npy.read_header(cast(BinaryIO, member), name)[0]

    def read(self, name: str) -> AnyArray:
        nbytes = self._archive.getinfo(name + SUFFIX).file_size
        with self._archive.open(name + SUFFIX) as member:
            return npy.read_array(cast(BinaryIO, member), name, nbytes)
