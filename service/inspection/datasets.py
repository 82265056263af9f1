"""Reads datasets from .npz files (zip archives of .npy arrays).

No pickle is read, and sizes in headers are compared with the real ones before memory is allocated.
"""

import zipfile
import zlib
from io import BufferedIOBase
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib import format as npy

from nern.layers import StateDict
from service.inspection.refusal import Refusal

EXPECTED = "an .npz file with `images` (uint8, N x H x W x C, C from 1 to 4) and, if wanted, `labels` (integers, N)"

# Real datasets have far fewer classes. A larger label is a mistake.
MAX_CLASSES = 100_000


def read(file: BinaryIO, *, max_bytes: int) -> StateDict:
    """The tensors of a dataset: `images` (uint8, N x H x W x C) and, if the file has labels, `labels` (int64, N).

    Raises Refusal, also if the unpacked arrays have more than `max_bytes` bytes together.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return _read_archive(archive, max_bytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise Refusal("bad-dataset", f"the file can't be read as a zip archive, or it was cut off; send {EXPECTED}") from error


def _read_archive(archive: zipfile.ZipFile, max_bytes: int) -> StateDict:
    names = archive.namelist()
    unknown = [name for name in names if name not in ("images.npy", "labels.npy")]
    if "images.npy" not in names or unknown or len(set(names)) != len(names):
        raise Refusal("bad-dataset", f"the archive holds {', '.join(sorted(names)[:5]) or 'no files'}; send {EXPECTED}")
    if sum(member.file_size for member in archive.infolist()) > max_bytes:
        raise Refusal("bad-dataset", f"the arrays have more than {max_bytes} bytes unpacked; send fewer or smaller images")
    images = _read_array(archive, "images.npy")
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape or images.shape[3] > 4:
        raise Refusal("bad-dataset", f"images are {images.dtype} of shape {list(images.shape)}; send {EXPECTED}")
    tensors = {"images": torch.from_numpy(images)}
    if "labels.npy" in names:
        labels = _read_array(archive, "labels.npy")
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise Refusal("bad-dataset", f"labels are {labels.dtype} of shape {list(labels.shape)}; send {EXPECTED}")
        if labels.min() < 0 or labels.max() >= MAX_CLASSES:
            raise Refusal(
                "bad-dataset",
                f"labels range from {labels.min()} to {labels.max()}; labels must be class numbers from 0 to {MAX_CLASSES - 1}",
            )
        tensors["labels"] = torch.from_numpy(labels.astype(np.int64))
    return tensors


def _read_array(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    try:
        with cast(BufferedIOBase, archive.open(name)) as file:
            version = npy.read_magic(file)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read_header(file)
            if dtype.hasobject:
                raise Refusal("bad-dataset", f"{name} holds Python objects; send {EXPECTED}")
            announced = int(np.prod(shape, dtype=object)) * dtype.itemsize
            held = archive.getinfo(name).file_size - file.tell()
            if announced != held:
                raise Refusal("bad-dataset", f"{name} has {held} bytes of data, but its header announces {announced}")
            data = np.empty(announced, dtype=np.uint8)
            if file.readinto(data.data) != announced:
                raise EOFError
    except ValueError as error:
        raise Refusal("bad-dataset", f"{name} is no array in the .npy format; send {EXPECTED}") from error
    return np.ascontiguousarray(data.view(dtype).reshape(shape, order="F" if fortran else "C"))
