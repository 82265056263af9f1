"""The predictor: a small MLP from an embedded coordinate to the weights of one kernel."""

import math
from collections.abc import Sequence
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from nern.embedding import Embedding, EmbeddingConfig
from nern.layers import Layer


class PredictorConfig(BaseModel):
    """Five linear layers, width -> hidden (x 4) -> kernel height x kernel width, with ReLU between them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding: EmbeddingConfig = EmbeddingConfig()
    hidden: int = Field(ge=1)
    size: tuple[int, int] = Field(description="Height and width of the predicted kernel: the largest of the network")

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.embedding.width, *[self.hidden] * 4, math.prod(self.size))

    @property
    def parameters(self) -> int:
        return sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.widths))


def largest_size(layers: Sequence[Layer]) -> tuple[int, int]:
    """The smallest kernel that every kernel of these layers is a crop of."""
    return max(layer.size[0] for layer in layers), max(layer.size[1] for layer in layers)


def hidden_for_ratio(ratio: float, layers: Sequence[Layer], embedding: EmbeddingConfig) -> int:
    """The widest predictor whose parameters number at most `ratio` of the represented weights (at least 1)."""
    budget = ratio * sum(layer.weights for layer in layers)
    size = largest_size(layers)
    # Parameters are a h^2 + b h + c with a = 3; the root is exact up to rounding.
    linear = embedding.width + 4 + math.prod(size)
    root = (-linear + math.sqrt(linear**2 + 12 * max(budget - math.prod(size), 0))) / 6
    return max(1, int(root))


class Predictor(nn.Module):
    """Predicts kernels of the largest size; see `Representation` for what is cut out of them."""

    def __init__(self, config: PredictorConfig, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config.embedding, layers)
        modules: list[nn.Module] = []
        for inputs, outputs in pairwise(config.widths):
            modules += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.mlp = nn.Sequential(*modules[:-1])

    def forward(self, layer: Tensor, filter: Tensor, channel: Tensor) -> Tensor:
        """Kernels at n coordinates (three int64 tensors of shape (n,)): float32 of shape (n, height, width)."""
        out: Tensor = self.mlp(self.embedding(layer, filter, channel))
        return out.view(-1, *self.config.size)
