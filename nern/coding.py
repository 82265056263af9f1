"""Entropy coding of the codes of quantised weights with the Huffman coding of DEFLATE (RFC 1951).

The result is a raw DEFLATE stream without repeated strings. Libraries of every language can decode such streams. If no code
is much more frequent than all others, the stream is a few percent longer than the entropy of the codes.

The symbols of the Huffman coding are bytes. An integer of up to eight bits is one symbol. The upper eight bits of a longer
integer are one symbol; the lower bits of all integers follow after the last symbol, packed as in `nern.packing`.
"""

import zlib

import torch
from torch import Tensor

from nern import packing
from nern.errors import BadArtefact

SYMBOL_BITS = 8


def encode(codes: Tensor, bits: int) -> Tensor:
    """The stream of signed integers of `bits` bits: int16 of any shape to uint8 (nbytes,)."""
    rest = max(0, bits - SYMBOL_BITS)
    upper = (codes.flatten() >> rest).to(torch.int8).view(torch.uint8)
    symbols = torch.cat([upper, packing.pack(codes.flatten(), rest)])
    compressor = zlib.compressobj(level=9, wbits=-15, strategy=zlib.Z_HUFFMAN_ONLY)
    data = compressor.compress(symbols.numpy().tobytes()) + compressor.flush()
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def decode(data: Tensor, shape: tuple[int, ...], bits: int) -> Tensor:
    """The inverse of `encode`: uint8 (nbytes,) to int16 of `shape`.

    Raises BadArtefact if `data` is not a DEFLATE stream, or does not hold exactly as many integers as `shape` has elements.
    """
    count, rest = torch.Size(shape).numel(), max(0, bits - SYMBOL_BITS)
    expected = count + packing.nbytes(count, rest)
    decompressor = zlib.decompressobj(wbits=-15)
    try:
        symbols = decompressor.decompress(data.numpy().tobytes(), expected + 1)
    except zlib.error as error:
        raise BadArtefact("the coded weights of the predictor are damaged: they are not a DEFLATE stream") from error
    if len(symbols) != expected or not decompressor.eof or decompressor.unused_data:
        raise BadArtefact(f"the coded weights of the predictor are damaged: {count} weights were expected")
    upper, lower = torch.frombuffer(bytearray(symbols), dtype=torch.uint8).tensor_split([count])
    codes = (upper.view(torch.int8).to(torch.int16) << rest) + packing.unpack(lower, count, rest).to(torch.int16)
    return codes.view(shape)
