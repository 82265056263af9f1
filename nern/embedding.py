"""Positional embedding of integer coordinates (Ashkenazi et al., arXiv 2212.13554, section 3).

A coordinate is (layer, filter, tile). Each number v of the coordinate is embedded as sin(pi base^k v) and cos(pi base^k v) for
k = 0 … levels - 1. The embedding of a coordinate is the concatenation of the three embeddings. With base < 1, the frequencies
fall from the Nyquist frequency. With base > 1, they rise above it and alias.

Neighbouring layers need not be similar, so the number of a layer says little. A layer can therefore have learned features in
place of sines and cosines.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class EmbeddingConfig(BaseModel):
    """The shape of an embedding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: float = Field(gt=0, description="Ratio of neighbouring frequencies")
    levels: int = Field(ge=1, description="Number of frequencies for each axis of the coordinate")
    layer_features: int | None = Field(ge=1, description="Number of learned features of each layer; none: sines and cosines")

    @property
    def width(self) -> int:
        """The number of features of one coordinate."""
        return 3 * 2 * self.levels if self.layer_features is None else self.layer_features + 2 * 2 * self.levels

    def parameters(self, layers: int) -> int:
        """The number of parameters of the embedding of a network with so many represented layers."""
        return layers * (self.layer_features or 0)


def axis_table(config: EmbeddingConfig, length: int) -> Tensor:
    """The embeddings of the integers 0 … length - 1, float32 (length, 2 * levels): the sines, then the cosines."""
    frequency = math.pi * config.base ** torch.arange(config.levels, dtype=torch.float64)
    phase = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return torch.cat([phase.sin(), phase.cos()], dim=1).float()


class Embedding(nn.Module):
    """Looks coordinates up in one table for each axis. A table of all coordinates would be much larger."""

    def __init__(self, config: EmbeddingConfig, extents: Sequence[int]) -> None:
        """An embedding of coordinates below `extents`, the lengths of the axes (layer, filter, tile)."""
        super().__init__()
        for axis, length in zip(("layer", "filter", "tile"), extents, strict=True):
            if axis == "layer" and config.layer_features is not None:
                self.register_parameter(axis, nn.Parameter(torch.randn(length, config.layer_features)))
            else:
                # The table follows from the configuration, so the artefact does not store it.
                self.register_buffer(axis, axis_table(config, length), persistent=False)

    layer: Tensor
    filter: Tensor
    tile: Tensor

    def forward(self, layer: Tensor, filter: Tensor, tile: Tensor) -> Tensor:
        """Embeds n coordinates: three int64 tensors (n,) to float32 (n, width)."""
        # Unlike indexing, F.embedding adds gradients in the same order in every run, for any number of threads.
        return torch.cat([F.embedding(layer, self.layer), self.filter[filter], self.tile[tile]], dim=1)
