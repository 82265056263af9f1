"""Tensors of an ONNX file as torch tensors."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from nern import tensorfile
from nern.errors import BadProgram

DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BFLOAT16: torch.bfloat16,
}
ONNX_TYPES = {dtype: code for code, dtype in DTYPES.items()}

# A protocol buffer can't be larger.
MAX_BYTES = 2**31 - 1

Files = Mapping[str, bytes]
"""The other files of an upload, by their names without a folder."""

# Fields of TensorProto that hold numbers one by one, and the dtype of what they hold: the bits, for floats of 16 bits.
_FIELDS: dict[int, tuple[str, Any]] = {
    TensorProto.FLOAT: ("float_data", np.float32),
    TensorProto.DOUBLE: ("double_data", np.float64),
    TensorProto.INT64: ("int64_data", np.int64),
    TensorProto.UINT32: ("uint64_data", np.uint32),
    TensorProto.UINT64: ("uint64_data", np.uint64),
    TensorProto.INT32: ("int32_data", np.int32),
    TensorProto.INT16: ("int32_data", np.int16),
    TensorProto.INT8: ("int32_data", np.int8),
    TensorProto.UINT16: ("int32_data", np.uint16),
    TensorProto.UINT8: ("int32_data", np.uint8),
    TensorProto.BOOL: ("int32_data", np.bool_),
    TensorProto.FLOAT16: ("int32_data", np.uint16),
    TensorProto.BFLOAT16: ("int32_data", np.uint16),
}


def dtype_of(code: int, what: str) -> torch.dtype:
    """The dtype of a code of ONNX. Raises BadProgram, with `what` has it, for a dtype that is not supported."""
    if code not in DTYPES:
        known = code in TensorProto.DataType.values()
        name = TensorProto.DataType.Name(code) if known else str(code)
        raise BadProgram(f"{what} has the type {name}, which is not supported; export the network in float32")
    return DTYPES[code]


def program_dtype(dtype: torch.dtype) -> str:
    """The dtype, in the notation of safetensors, in which a program computes what the file has in `dtype`.

    All floating-point numbers are in float32, and unsigned integers of more than 8 bits in int64.
    """
    if dtype.is_floating_point:
        return "F32"
    return tensorfile.NAMES.get(dtype, "I64") if dtype not in (torch.uint16, torch.uint32, torch.uint64) else "I64"


def read_tensor(proto: TensorProto, what: str, files: Files) -> Tensor:
    """The tensor. `what` names it in messages. Raises BadProgram."""
    dtype = dtype_of(proto.data_type, what)
    shape = tuple(proto.dims)
    if any(extent < 0 for extent in shape):
        raise BadProgram(f"{what} has a negative number in its shape")
    if proto.HasField("segment"):
        raise BadProgram(f"{what} is stored in segments, which is not supported")
    data: bytes | bytearray
    if proto.data_location == TensorProto.EXTERNAL:
        data = _external(proto, what, files)
    elif proto.HasField("raw_data"):
        data = proto.raw_data
    else:
        field, numbers = _FIELDS[proto.data_type]
        values = getattr(proto, field)
        try:
            data = np.fromiter(values, numbers, len(values)).tobytes()
        except (OverflowError, ValueError) as error:
            raise BadProgram(f"{what} has a number that its type can't hold") from error
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise BadProgram(f"{what} has {len(data)} bytes, but its shape {list(shape)} needs {math.prod(shape) * dtype.itemsize}")
    try:
        return tensorfile.from_bytes(data, dtype, shape)
    except RuntimeError as error:
        raise BadProgram(f"{what} has a shape that torch can't hold: {list(shape)}") from error


def _external(proto: TensorProto, what: str, files: Files) -> bytes:
    entries = {entry.key: entry.value for entry in proto.external_data}
    location = entries.get("location", "").rpartition("/")[2]
    if location not in files:
        raise BadProgram(
            f"{what} is in another file, {location!r}; send both files together, or save the network as one file: "
            "torch.onnx.export(…, external_data=False), or onnx.save(onnx.load('model.onnx'), 'one_file.onnx')"
        )
    try:
        start, length = int(entries.get("offset", 0)), int(entries.get("length", len(files[location])))
    except ValueError as error:
        raise BadProgram(f"{what} has no proper place in {location!r}") from error
    if start < 0 or length < 0 or start + length > len(files[location]):
        raise BadProgram(f"{what} lies outside the file {location!r}")
    return files[location][start : start + length]
