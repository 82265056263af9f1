"""Entropy coding of small integers: the Huffman part of DEFLATE (RFC 1951) alone, which any language can read.

Huffman codes come within a few percent of the entropy of codes that are not very skewed, and take no state to describe.
"""

import zlib

import torch
from torch import Tensor

from nern.errors import BadArtefact


def encode(codes: Tensor) -> Tensor:
    """int8 codes as a string of bytes, uint8."""
    compressor = zlib.compressobj(level=9, wbits=-15, strategy=zlib.Z_HUFFMAN_ONLY)
    data = compressor.compress(codes.contiguous().numpy().tobytes()) + compressor.flush()
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def decode(data: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `encode`. Raises BadArtefact unless there are exactly as many codes as the shape says."""
    count = torch.Size(shape).numel()
    decompressor = zlib.decompressobj(wbits=-15)
    try:
        codes = decompressor.decompress(data.numpy().tobytes(), count + 1)
    except zlib.error as error:
        raise BadArtefact("coded weights of the predictor are damaged") from error
    if len(codes) != count:
        raise BadArtefact(f"coded weights of the predictor: {count} were expected")
    return torch.frombuffer(bytearray(codes), dtype=torch.int8).view(shape)
