"""Reads checkpoint files of every format: which reader a file needs, and what the file holds."""

import pickle
from typing import BinaryIO

from service.inspection import graphs, hdf5_files, numpy_files, recognition, safetensors_files, shards, tars, torch_files
from service.inspection.archives import Archive
from service.inspection.tree import Content


def read(file: BinaryIO, nbytes: int) -> tuple[str, Content]:
    """The format and the content of a checkpoint file of `nbytes` bytes. Raises Refusal.

    The formats are safetensors, safetensors-shards, torch-zip, torch-legacy, torchscript, torch-export,
    onnx, pickle, npz, npy, hdf5 and keras.
    """
    file.seek(0)
    start = file.read(recognition.START_BYTES)
    if safetensors_files.sniff(start):
        format, content = "safetensors", safetensors_files.read(file, nbytes)
    elif start.startswith(b"PK\x03\x04"):
        format, content = _read_archive(file, nbytes)
    elif start.startswith(pickle.PROTO):
        format, content = torch_files.read_pickle(file, nbytes)
    elif start.startswith(numpy_files.MAGIC):
        format, content = "npy", numpy_files.read_array(file, nbytes)
    elif start.startswith(hdf5_files.MAGIC):
        format, content = "hdf5", hdf5_files.read(file, nbytes)
    elif graphs.is_onnx(start):
        format, content = "onnx", graphs.read_onnx(file, nbytes)
    elif tars.sniff(start):
        format, content = _read_files(tars.members(file, nbytes))
    else:
        raise recognition.refuse_unknown(start)
    if content.program is None:
        recognition.validate_content(content.tree)
    return format, content


def _read_files(members: dict[str, tars.Window]) -> tuple[str, Content]:
    if any(name.endswith(graphs.ONNX_SUFFIX) for name in members):
        return "onnx", graphs.read_onnx_files(members)
    return "safetensors-shards", shards.read(members)


def _read_archive(file: BinaryIO, nbytes: int) -> tuple[str, Content]:
    archive = Archive(file, nbytes)
    if graphs.is_exported(archive.names):
        return "torch-export", graphs.read_exported(file)
    if torch_files.is_archive(archive):
        return torch_files.read_archive(archive, nbytes)
    if numpy_files.is_archive(archive):
        return "npz", numpy_files.read_archive(archive, nbytes)
    if hdf5_files.is_keras(archive):
        return "keras", hdf5_files.read_keras(archive, nbytes)
    raise recognition.refuse_archive(archive.names)
