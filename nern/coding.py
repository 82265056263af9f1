"""Entropy coding of small integers: the Huffman part of DEFLATE (RFC 1951) alone, which any language can read.

Huffman codes come within a few percent of the entropy of codes that are not very skewed, and take no state to describe.
Symbols are bytes. Integers of more than eight bits are the symbols of their upper eight, and then, packed, what is left.
"""

import zlib

import torch
from torch import Tensor

from nern import packing
from nern.errors import BadArtefact

SYMBOL_BITS = 8


def encode(codes: Tensor, bits: int) -> Tensor:
    """Signed integers of so many bits, int16, as a string of bytes, uint8."""
    rest = max(0, bits - SYMBOL_BITS)
    upper = (codes.flatten() >> rest).to(torch.int8).view(torch.uint8)
    symbols = torch.cat([upper, packing.pack(codes.flatten(), rest)])
    compressor = zlib.compressobj(level=9, wbits=-15, strategy=zlib.Z_HUFFMAN_ONLY)
    data = compressor.compress(symbols.numpy().tobytes()) + compressor.flush()
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def decode(data: Tensor, shape: tuple[int, ...], bits: int) -> Tensor:
    """The inverse of `encode`. Raises BadArtefact unless there are exactly as many codes as the shape says."""
    count, rest = torch.Size(shape).numel(), max(0, bits - SYMBOL_BITS)
    expected = count + packing.nbytes(count, rest)
    decompressor = zlib.decompressobj(wbits=-15)
    try:
        symbols = decompressor.decompress(data.numpy().tobytes(), expected + 1)
    except zlib.error as error:
        raise BadArtefact("coded weights of the predictor are damaged") from error
    if len(symbols) != expected or not decompressor.eof or decompressor.unused_data:
        raise BadArtefact(f"coded weights of the predictor: {count} were expected")
    upper, lower = torch.frombuffer(bytearray(symbols), dtype=torch.uint8).tensor_split([count])
    codes = (upper.view(torch.int8).to(torch.int16) << rest) + packing.unpack(lower, count, rest).to(torch.int16)
    return codes.view(shape)
