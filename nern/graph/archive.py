"""Reading the zip archives of torch.export: members and tensors. Nothing is unpickled here."""

import json
import math
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, BinaryIO

import torch
from torch import Tensor

from nern.errors import BadProgram
from nern.layers import StateDict

ReadPickled = Callable[[BinaryIO], Mapping[str, Tensor]]
"""Reads a file of torch.save without executing anything of it."""

MAX_JSON_BYTES = 128 * 2**20
MAX_MEMBERS = 100_000
# A tensor with a stride of 0 repeats its bytes. More elements than this are refused.
MAX_REPEATED_ELEMENTS = 2**20

# The numbers of dtypes in the schema of torch.export (torch/_export/serde/schema.py), and their names in safetensors files.
DTYPES: dict[int, tuple[str, torch.dtype]] = {
    1: ("U8", torch.uint8),
    2: ("I8", torch.int8),
    3: ("I16", torch.int16),
    4: ("I32", torch.int32),
    5: ("I64", torch.int64),
    6: ("F16", torch.float16),
    7: ("F32", torch.float32),
    8: ("F64", torch.float64),
    9: ("C32", torch.complex32),
    10: ("C64", torch.complex64),
    11: ("C128", torch.complex128),
    12: ("BOOL", torch.bool),
    13: ("BF16", torch.bfloat16),
    28: ("U16", torch.uint16),
    29: ("F8_E4M3", torch.float8_e4m3fn),
    30: ("F8_E5M2", torch.float8_e5m2),
    31: ("F8_E4M3FNUZ", torch.float8_e4m3fnuz),
    32: ("F8_E5M2FNUZ", torch.float8_e5m2fnuz),
    33: ("F8_E8M0", torch.float8_e8m0fnu),
    34: ("U32", torch.uint32),
    35: ("U64", torch.uint64),
}


class Archive:
    """The archive in an open file. Names of members are without the folder that all members are in. Raises BadProgram."""

    def __init__(self, file: BinaryIO, read_pickled: ReadPickled) -> None:
        self._read_pickled = read_pickled
        try:
            nbytes = file.seek(0, 2)
            self._zip = zipfile.ZipFile(file)
            infos = self._zip.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise BadProgram("the file is not a zip archive, or its end is missing; upload the file again") from error
        # Inside the archive is a smaller one, the example inputs. It is found where the end of the archive is missing.
        if min((info.header_offset for info in infos), default=0) > 0:
            raise BadProgram("the end of the archive is missing; upload the file again")
        if len(infos) > MAX_MEMBERS:
            raise BadProgram(f"the archive has more than {MAX_MEMBERS} members")
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos) or sum(info.file_size for info in infos) > nbytes:
            raise BadProgram("the members of the archive are compressed, which torch.export.save never does; save it again")
        roots = {info.filename.partition("/")[0] for info in infos if "/" in info.filename}
        loose = any("/" not in info.filename for info in infos)
        cut = len(next(iter(roots))) + 1 if len(roots) == 1 and not loose else 0
        self._members = {info.filename[cut:]: info for info in infos}
        if len(self._members) < len(infos):
            raise BadProgram("the archive has two members of the same name")

    def names(self) -> list[str]:
        """The names of all members."""
        return list(self._members)

    def bytes(self, name: str) -> bytes:
        """The content of a member."""
        if name not in self._members:
            raise BadProgram(f"the archive has no member {name}; save the program again with torch.export.save")
        try:
            return self._zip.read(self._members[name])
        except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            raise BadProgram(f"the member {name} of the archive is damaged; upload the file again") from error

    def json(self, name: str) -> Any:
        """The content of a member that is JSON."""
        if name in self._members and self._members[name].file_size > MAX_JSON_BYTES:
            raise BadProgram(f"the member {name} of the archive is larger than {MAX_JSON_BYTES >> 20} MiB")
        try:
            # From bytes, Python would import the decoder of any encoding.
            return json.loads(self.bytes(name).decode())
        except (ValueError, RecursionError) as error:
            raise BadProgram(f"the member {name} of the archive is not JSON, or is nested too deeply") from error

    def pickled(self, name: str) -> dict[str, Tensor]:
        """The tensors of a member that torch.save wrote."""
        content = self.bytes(name)
        return dict(self._read_pickled(BytesIO(content))) if content else {}

    def tensors(self, folder: str, model: str, kind: str) -> StateDict:
        """The tensors of the folder `data/{folder}`, by name. Tensors that share bytes there share memory here."""
        if f"data/{folder}/{model}.pt" in self._members:
            return self.pickled(f"data/{folder}/{model}.pt")
        if self._members.keys() & {"byteorder"} and self.bytes("byteorder") != b"little":
            raise BadProgram("the archive was written on a big-endian machine; save it again on another")
        storages: dict[str, bytearray] = {}
        made: dict[str, Tensor] = {}
        tensors: StateDict = {}
        for name, payload in self.json(f"data/{folder}/model_{kind}_config.json".replace("model", model, 1))["config"].items():
            path = payload["path_name"]
            if payload["tensor_meta"] is None or payload["use_pickle"]:
                raise BadProgram(f"{name!r} is an object of Python or a tensor of a class of its own, which is not supported")
            key = json.dumps([path, payload["tensor_meta"]])
            if key not in made:
                if path not in storages:
                    storages[path] = bytearray(self.bytes(f"data/{folder}/{path}"))
                made[key] = _tensor(name, storages[path], payload["tensor_meta"])
            tensors[str(name)] = made[key]
        return tensors


def _tensor(name: str, storage: bytearray, meta: Mapping[str, Any]) -> Tensor:
    if meta["dtype"] not in DTYPES or meta["layout"] != 7:
        raise BadProgram(f"tensor {name!r} has a dtype or a layout that is not supported; save it as a dense tensor")
    _, dtype = DTYPES[meta["dtype"]]
    shape, strides = (_integers(meta[field]) for field in ("sizes", "strides"))
    offset = _integers([meta["storage_offset"]])[0]
    elements = math.prod(shape)
    if elements == 0:
        return torch.empty(shape, dtype=dtype)
    if len(shape) != len(strides) or min((*shape, *strides, offset)) < 0:
        raise BadProgram(f"tensor {name!r} has an impossible shape")
    last = offset + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))
    if not storage:
        raise BadProgram(f"tensor {name!r} has no bytes: the program was exported with fake tensors")
    if (last + 1) * dtype.itemsize > len(storage) or len(storage) % dtype.itemsize:
        raise BadProgram(f"tensor {name!r} is larger than its bytes in the archive")
    if elements > max(len(storage) // dtype.itemsize, MAX_REPEATED_ELEMENTS):
        raise BadProgram(f"tensor {name!r} repeats its elements; save a contiguous copy of it")
    return torch.frombuffer(storage, dtype=dtype).as_strided(shape, strides, offset)


def _integers(sizes: list[Mapping[str, Any]]) -> tuple[int, ...]:
    numbers = tuple(size["as_int"] for size in sizes)
    if not all(type(number) is int and number < 2**48 for number in numbers):
        raise ValueError(numbers)
    return numbers
