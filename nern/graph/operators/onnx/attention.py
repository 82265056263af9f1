"""Attention and rotary embeddings."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nern.graph.operators.onnx.values import together
from nern.graph.operators.registry import operator


@operator("onnx.Attention")
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
) -> Tensor:
    """Attention without a cache. Inputs are batch, heads, length, features; or batch, length, heads x features."""
    joined = query.ndim == 3
    if joined:
        query = query.unflatten(-1, (q_num_heads, -1)).transpose(1, 2)
        key = key.unflatten(-1, (kv_num_heads, -1)).transpose(1, 2)
        value = value.unflatten(-1, (kv_num_heads, -1)).transpose(1, 2)
    if (times := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if softcap:
        scores = softcap * (scores / softcap).tanh()
    allowed = None
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -math.inf)
    if mask is not None:
        scores, mask = together(scores, mask)
        if (missing := scores.shape[-1] - mask.shape[-1]) > 0:
            mask = F.pad(mask, [0, missing], value=False if mask.dtype == torch.bool else -math.inf)
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    result = scores.softmax(-1) @ value
    return result.transpose(1, 2).flatten(2) if joined else result


@operator("onnx.RotaryEmbedding")
def rotary_embedding(
    x: Tensor,
    cosines: Tensor,
    sines: Tensor,
    positions: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """Rotates pairs of features. Inputs are batch, heads, length, features; or batch, length, heads x features."""
    joined = x.ndim == 3
    heads = x.unflatten(-1, (num_heads, -1)) if joined else x.transpose(1, 2)
    count = rotary_embedding_dim or heads.shape[-1]
    if positions is not None:
        cosines, sines, positions = together(cosines, sines, positions)
        shape = (*positions.shape, cosines.shape[-1])
        cosines, sines = (table.index_select(0, positions.flatten()).reshape(shape) for table in (cosines, sines))
    cosines, sines = cosines.unsqueeze(2), sines.unsqueeze(2)
    rotated, rest = heads[..., :count], heads[..., count:]
    first, second = (rotated[..., 0::2], rotated[..., 1::2]) if interleaved else rotated.chunk(2, -1)
    real, imaginary = cosines * first - sines * second, sines * first + cosines * second
    turned = torch.stack((real, imaginary), -1).flatten(-2) if interleaved else torch.cat((real, imaginary), -1)
    result = torch.cat((turned, rest), -1)
    return result.flatten(2) if joined else result.transpose(1, 2)
