"""Datasets in the safetensors format: tensors in place of arrays."""

from typing import BinaryIO

import numpy as np
import torch

from nern import tensorfile
from nern.errors import BadArtefact
from nern.tensorfile import Entry
from service.inspection.datasets.arrays import AnyArray, Header
from service.inspection.datasets.found import bad, shown


class Safetensors:
    """The tensors of a file. numpy has no bfloat16, so such tensors are read as float32. Raises Refusal."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        nbytes = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        try:
            self._entries, _ = tensorfile.parse_header(file.read(min(length, nbytes)))
        except BadArtefact as error:
            raise bad(f"{error}; write the file with the safetensors library") from error
        for name, entry in self._entries.items():
            if not 8 + length <= entry.start <= entry.stop <= nbytes:
                raise bad(f"the file ends before the tensor `{shown(name)}` does; upload the file again")
        self.names = list(self._entries)

    def header(self, name: str) -> Header:
        entry = self._entries[name]
        return Header(np.dtype(_numpy_name(entry)), entry.shape)

    def read(self, name: str) -> AnyArray:
        entry = self._entries[name]
        self._file.seek(entry.start)
        data = bytearray(entry.stop - entry.start)
        self._file.readinto(data)  # type: ignore[attr-defined]
        tensor = tensorfile.from_bytes(data, entry.dtype, entry.shape)
        array: AnyArray = (tensor.float() if entry.dtype is torch.bfloat16 else tensor).numpy()
        return array


def _numpy_name(entry: Entry) -> str:
    return "float32" if entry.dtype is torch.bfloat16 else str(entry.dtype).removeprefix("torch.")
