"""Writing an ONNX file around tensors, piece by piece, without a library.

Where the bytes of two protocol buffers stand one after the other, a parser merges them: lists are joined. So a file is a
skeleton, which is a model without its initialisers, and then for each tensor a small model whose graph has this initialiser.
The length of a file, and the place of each tensor, are known before any tensor exists. (`nern/tensorfile.py` does the same for
safetensors files.)
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from nern.errors import BadProgram
from nern.graph.onnx_tensors import MAX_BYTES, ONNX_TYPES
from nern.tensorfile import Entry, nbytes_of

# Tags of the protocol buffer: the number of a field and how it is encoded (0: an integer; 2: a length and bytes).
_GRAPH = bytes([7 << 3 | 2])
_INITIALISER = bytes([5 << 3 | 2])
_DIMS = bytes([1 << 3])
_DATA_TYPE = bytes([2 << 3])
_NAME = bytes([8 << 3 | 2])
_RAW_DATA = bytes([9 << 3 | 2])


@dataclass(frozen=True)
class Skeleton:
    """A model without its initialisers, and the names of the initialisers that it takes.

    widened: whether floating-point initialisers are float32, whatever they are in the checkpoint.
    """

    content: bytes
    names: tuple[str, ...]
    widened: bool = False


@dataclass(frozen=True)
class OnnxLayout:
    """What stands where in a file: bytes, or the data of a tensor. `nbytes` is the size of the file."""

    pieces: tuple[bytes | Entry, ...]
    nbytes: int

    def read(self, start: int, stop: int, data: Callable[[Entry, int, int], Iterable[bytes]]) -> Iterator[bytes]:
        """Yields bytes start..stop of the file. `data` gives bytes a..b of the data of a tensor."""
        offset = 0
        for piece in self.pieces:
            size = len(piece) if isinstance(piece, bytes) else piece.stop - piece.start
            first, last = max(start - offset, 0), min(stop - offset, size)
            offset += size
            if first >= last:
                continue
            if isinstance(piece, bytes):
                yield piece[first:last]
            else:
                yield from data(piece, first, last)


def layout(skeleton: bytes, tensors: Iterable[tuple[str, torch.dtype, tuple[int, ...]]]) -> OnnxLayout:
    """The layout of a file with these initialisers (name, dtype, shape), in this order.

    Raises BadProgram for a dtype that ONNX does not have, and for a file of more than 2 GiB.
    """
    pieces: list[bytes | Entry] = [skeleton]
    offset = len(skeleton)
    for name, dtype, shape in tensors:
        size = nbytes_of(dtype, shape)
        first = _before_data(name, dtype, shape, size)
        offset += len(first)
        pieces += [first, Entry(name, dtype, shape, offset, offset + size)]
        offset += size
    if offset > MAX_BYTES:
        raise BadProgram("the ONNX file would be larger than 2 GiB, which no ONNX file can be; take the safetensors file")
    return OnnxLayout(tuple(pieces), offset)


def _before_data(name: str, dtype: torch.dtype, shape: tuple[int, ...], nbytes: int) -> bytes:
    """A model with one initialiser, up to the data of the initialiser."""
    if dtype not in ONNX_TYPES:
        raise BadProgram(f"the tensor {name!r} is {dtype}, which ONNX can't hold here")
    text = name.encode()
    tensor = b"".join(_DIMS + _varint(extent) for extent in shape)
    tensor += _DATA_TYPE + _varint(ONNX_TYPES[dtype]) + _NAME + _varint(len(text)) + text + _RAW_DATA + _varint(nbytes)
    graph = _INITIALISER + _varint(len(tensor) + nbytes) + tensor
    return _GRAPH + _varint(len(graph) + nbytes) + graph


def _varint(number: int) -> bytes:
    """A number in the encoding of protocol buffers: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
