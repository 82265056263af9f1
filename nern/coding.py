"""Entropy coding of small integers: the Huffman part of DEFLATE (RFC 1951) alone, which any language can read.

Huffman codes come within a few percent of the entropy of codes that are not very skewed, and take no state to describe.
Of integers of more than eight bits, what is beyond the upper eight follows as it is: it is close to uniform.
"""

import zlib

import torch
from torch import Tensor

from nern.bits import pack, unpack
from nern.errors import BadArtefact

SYMBOL = 8


def encode(codes: Tensor, bits: int) -> Tensor:
    """Signed integers of so many bits, int16, as a string of bytes, uint8."""
    rest = max(0, bits - SYMBOL)
    compressor = zlib.compressobj(level=9, wbits=-15, strategy=zlib.Z_HUFFMAN_ONLY)
    data = compressor.compress((codes >> rest).to(torch.int8).contiguous().numpy().tobytes()) + compressor.flush()
    return torch.cat([torch.frombuffer(bytearray(data), dtype=torch.uint8), pack(codes.flatten(), rest)])


def decode(data: Tensor, shape: tuple[int, ...], bits: int) -> Tensor:
    """The inverse of `encode`. Raises BadArtefact unless there are exactly as many codes as the shape says."""
    count, rest = torch.Size(shape).numel(), max(0, bits - SYMBOL)
    decompressor = zlib.decompressobj(wbits=-15)
    try:
        symbols = decompressor.decompress(data.numpy().tobytes(), count + 1)
        lower = unpack(data[data.numel() - len(decompressor.unused_data) :], count, rest)
    except (zlib.error, ValueError) as error:
        raise BadArtefact("coded weights of the predictor are damaged") from error
    if len(symbols) != count or not decompressor.eof:
        raise BadArtefact(f"coded weights of the predictor: {count} were expected")
    upper = torch.frombuffer(bytearray(symbols), dtype=torch.int8).to(torch.int16)
    return ((upper << rest) + lower.to(torch.int16)).view(shape)
