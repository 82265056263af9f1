"""Reads checkpoint files of every format: which reader a file needs, and what the file holds."""

import pickle
from typing import BinaryIO

from service.inspection import numpy_files, recognition, safetensors_files, torch_files
from service.inspection.archives import Archive
from service.inspection.tree import Content


def read(file: BinaryIO, nbytes: int) -> tuple[str, Content]:
    """The format and the content of a checkpoint file of `nbytes` bytes. Raises Refusal.

    The formats are safetensors, torch-zip, torch-legacy, torchscript, pickle, npz and npy.
    """
    file.seek(0)
    start = file.read(recognition.START_BYTES)
    if safetensors_files.sniff(start):
        format, content = "safetensors", safetensors_files.read(file, nbytes)
    elif start.startswith(b"PK\x03\x04"):
        format, content = _read_archive(Archive(file, nbytes), nbytes)
    elif start.startswith(pickle.PROTO):
        format, content = torch_files.read_pickle(file, nbytes)
    elif start.startswith(numpy_files.MAGIC):
        format, content = "npy", numpy_files.read_array(file, nbytes)
    else:
        raise recognition.refuse_unknown(start)
    recognition.validate_content(content.tree)
    return format, content


def _read_archive(archive: Archive, nbytes: int) -> tuple[str, Content]:
    if torch_files.is_archive(archive):
        return torch_files.read_archive(archive, nbytes)
    if numpy_files.is_archive(archive):
        return "npz", numpy_files.read_archive(archive, nbytes)
    raise recognition.refuse_archive(archive.names)
