"""Reads the file of a dataset, whatever format it has."""

from typing import BinaryIO

from service.inspection import safetensors_files
from service.inspection.datasets import folders, foreign, npy, of_arrays, zips
from service.inspection.datasets.arrays import Arrays
from service.inspection.datasets.found import Found, bad
from service.inspection.datasets.npy import NpyArray
from service.inspection.datasets.npz import SUFFIX, NpzArrays
from service.inspection.datasets.safetensors import Safetensors

EXPECTED = "an .npz, .npy or .safetensors file, or a zip of folders of images, one for each class"

START_BYTES = 512


def read(file: BinaryIO, *, max_bytes: int, size: tuple[int, int] | None) -> Found:
    """The dataset in a file. `size` is the height and width that the images of a zip archive are brought to.

    Raises Refusal, also if the unpacked arrays have more than `max_bytes` bytes together.
    """
    file.seek(0)
    start = file.read(START_BYTES)
    if start.startswith(b"PK"):
        with zips.opened(file) as archive:
            if not any(name.endswith(SUFFIX) for name in archive.namelist()):
                return folders.read(archive, max_bytes=max_bytes, size=size)
            return _read_arrays(NpzArrays(archive), max_bytes, size)
    try:
        if start.startswith(npy.MAGIC):
            return _read_arrays(NpyArray(file), max_bytes, size)
        if safetensors_files.sniff(start):
            return _read_arrays(Safetensors(file), max_bytes, size)
    except EOFError as error:
        raise bad("the file ends too early; upload the file again") from error
    raise bad(foreign.name(start) or f"the file is in no format of a dataset; send {EXPECTED}")


def _read_arrays(arrays: Arrays, max_bytes: int, size: tuple[int, int] | None) -> Found:
    if size is not None:
        raise bad(
            "size is for zip archives of images; resize images before you write arrays of them, and upload without ?size="
        )
    return of_arrays.read(arrays, max_bytes)
