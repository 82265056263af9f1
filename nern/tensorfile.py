"""Reading and writing of safetensors files (https://github.com/huggingface/safetensors, section "Format").

A file begins with eight bytes, the length of a JSON header as a little-endian integer. The header has the dtype, the shape and
the place of each tensor. The data follows the header. The functions of this module also serve for files that are computed
while a client reads them: the header can be made before any tensor exists.
"""

import json
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nern.errors import BadArtefact

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "C64": torch.complex64,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

# The limit of the reference implementation. A larger header is taken for an attack.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Entry:
    """One tensor of a file. Its bytes begin at offset `start` of the file and end before offset `stop`."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def nbytes_of(dtype: torch.dtype, shape: Iterable[int]) -> int:
    """The number of bytes of a tensor."""
    return math.prod(shape) * dtype.itemsize


def to_bytes(tensor: Tensor) -> bytes:
    """The elements of a tensor of any shape, row-major and little-endian."""
    flat = tensor.detach().resolve_neg().resolve_conj().cpu().contiguous().flatten()
    # A contiguous tensor of one element may have any stride, but `view` to another dtype needs a stride of 1.
    return flat.as_strided(flat.shape, (1,)).view(torch.uint8).numpy().tobytes()


def from_bytes(data: bytes | bytearray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `to_bytes`: a tensor of this dtype and shape. If `data` is a bytearray, the tensor shares its memory."""
    if not data:
        return torch.empty(shape, dtype=dtype)
    owned = data if isinstance(data, bytearray) else bytearray(data)
    return torch.frombuffer(owned, dtype=dtype).view(shape)


def make_header(
    tensors: Iterable[tuple[str, torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[Entry]]:
    """The first bytes of a file with these tensors (name, dtype, shape), in this order, and the place of each tensor.

    The first bytes are everything before the data of the first tensor.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset, places = 0, []
    for name, dtype, shape in tensors:
        stop = offset + nbytes_of(dtype, shape)
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [offset, stop]}
        places.append((name, dtype, shape, offset, stop))
        offset = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    first = len(text).to_bytes(8, "little") + text
    return first, [Entry(name, dtype, shape, len(first) + a, len(first) + b) for name, dtype, shape, a, b in places]


def header_length(first_eight: bytes) -> int:
    """The length in bytes of the JSON header that follows the first eight bytes of a file.

    Raises BadArtefact for fewer than eight bytes and for a header of more than MAX_HEADER_BYTES.
    """
    length = int.from_bytes(first_eight, "little")
    if len(first_eight) < 8 or length > MAX_HEADER_BYTES:
        raise BadArtefact("not a safetensors file")
    return length


def parse_header(text: bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors, by name, and the metadata of a file whose JSON header is `text`.

    Raises BadArtefact for a header that is not valid, or has a dtype that is not in DTYPES.
    """
    try:
        # Decoded here, because `loads` would guess the encoding of bytes, and import what decodes it.
        header = json.loads(text.decode(), object_pairs_hook=_without_repeats)
        metadata = header.pop("__metadata__", {})
        entries = {}
        for name, entry in header.items():
            start, stop = (8 + len(text) + operator.index(offset) for offset in entry["data_offsets"])
            if entry["dtype"] not in DTYPES:
                raise BadArtefact(f"tensor {name!r} has the dtype {entry['dtype']}, which can't be read")
            entries[name] = Entry(name, DTYPES[entry["dtype"]], tuple(entry["shape"]), start, stop)
            if any(operator.index(extent) < 0 for extent in entry["shape"]):
                raise BadArtefact(f"tensor {name!r} has a negative number in its shape")
            if stop - start != nbytes_of(entries[name].dtype, entries[name].shape):
                raise BadArtefact(f"tensor {name!r} has another size in bytes than its shape needs")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadArtefact("the header of the safetensors file can't be read") from error
    return entries, metadata


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(unique := dict(pairs)) < len(pairs):
        raise BadArtefact("the header of the safetensors file has a name twice")
    return unique


def load(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, in the order of its header, then their aliases. Raises BadArtefact."""
    return with_aliases(*load_with_metadata(path))


def with_aliases(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors, and those whose names the metadata maps to the name of a tensor that they are the same as.

    The reference implementation (`save_model`) stores tied tensors so.
    """
    shared = {alias: tensors[name] for alias, name in metadata.items() if name in tensors and alias not in tensors}
    return tensors | shared


def load_with_metadata(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file by name, in the order of its header, and the metadata of the file. Raises BadArtefact."""
    with path.open("rb") as file:
        entries, metadata = parse_header(file.read(header_length(file.read(8))))
        tensors = {}
        for name, entry in entries.items():
            file.seek(entry.start)
            # The bytes are read into the memory of the tensor. A dataset may take half of the memory, so a copy may not fit.
            data = bytearray(entry.stop - entry.start)
            if file.readinto(data) < len(data):
                raise BadArtefact(f"the file ends inside the tensor {name!r}")
            tensors[name] = from_bytes(data, entry.dtype, entry.shape)
    return tensors, metadata
