"""Positional embedding of integer coordinates (Ashkenazi et al., arXiv 2212.13554, section 3).

For v in (layer, filter, tile) and k = 0..levels-1: sin(pi base^k v), cos(pi base^k v); the three embeddings side by
side. With base < 1 the frequencies fall from Nyquist; with base > 1 they rise and alias. The numbers of layers mean
little, so that features of a layer may be learned instead.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class EmbeddingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    base: float = Field(gt=0, description="Ratio of neighbouring frequencies")
    levels: int = Field(ge=1, description="Frequencies of each axis")
    layer_features: int | None = Field(ge=1, description="Learned features of a layer in place of its frequencies")

    @property
    def width(self) -> int:
        """Length of the embedding of one coordinate triple."""
        return 3 * 2 * self.levels if self.layer_features is None else self.layer_features + 2 * 2 * self.levels

    def parameters(self, layers: int) -> int:
        """How many parameters the embedding of a network with so many layers has."""
        return layers * (self.layer_features or 0)


def axis_table(config: EmbeddingConfig, length: int) -> Tensor:
    """Embeddings of the integers 0..length-1, float32 of shape (length, 2 levels): all sines, then all cosines."""
    frequency = math.pi * config.base ** torch.arange(config.levels, dtype=torch.float64)
    phase = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return torch.cat([phase.sin(), phase.cos()], dim=1).float()


class Embedding(nn.Module):
    """Looks coordinates up in one small table an axis: never tiles x width floats."""

    def __init__(self, config: EmbeddingConfig, extents: Sequence[int]) -> None:
        """`extents` are the lengths of the three axes."""
        super().__init__()
        for axis, length in zip(("layer", "filter", "tile"), extents, strict=True):
            if axis == "layer" and config.layer_features is not None:
                self.register_parameter(axis, nn.Parameter(torch.randn(length, config.layer_features)))
            else:
                # These tables follow from the configuration, so they are not part of the artefact.
                self.register_buffer(axis, axis_table(config, length), persistent=False)

    layer: Tensor
    filter: Tensor
    tile: Tensor

    def forward(self, layer: Tensor, filter: Tensor, tile: Tensor) -> Tensor:
        """Embeds n coordinates, three int64 tensors of shape (n,), into (n, width)."""
        # Unlike indexing, F.embedding adds gradients up in the same order every time, however many threads there are.
        return torch.cat([F.embedding(layer, self.layer), self.filter[filter], self.tile[tile]], dim=1)
