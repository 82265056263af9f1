"""The predictor: a small MLP from an embedded coordinate to the weights of one tile."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from nern.embedding import Embedding, EmbeddingConfig
from nern.quantisation import Linear
from nern.request.options import MAX_HIDDEN, ActivationKind
from nern.tiles import Tiles

ACTIVATIONS: dict[ActivationKind, Callable[[], nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}

# Of the first linear layer, at least, and how many more than the others': rounding it hurts some seventeen times as much as
# rounding another one, weight for weight, and each bit makes that four times less.
FIRST_BITS, MORE_BITS = 8, 2


class PredictorConfig(BaseModel):
    """Linear layers with an activation between them: width of the embedding -> hidden (x depth - 1) -> weights of a tile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding: EmbeddingConfig
    hidden: int = Field(ge=1)
    depth: int = Field(ge=2, description="Linear layers, the head included")
    activation: ActivationKind

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the embedding and of the hidden layers."""
        return (self.embedding.width, *[self.hidden] * (self.depth - 1))

    @property
    def activations(self) -> int:
        """How many numbers a backward pass needs for each tile."""
        return self.embedding.width + 2 * self.hidden * (self.depth - 1)

    def parameters(self, tiles: Tiles) -> int:
        """How many parameters the predictor of these tiles has."""
        trunk = sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.widths))
        heads = (self.hidden + 1) * sum(math.prod(shape) for shape in tiles.heads)
        return trunk + heads + self.embedding.parameters(len(tiles.layers))

    def within(self, ratio: float, tiles: Tiles) -> "PredictorConfig":
        """The widest predictor, up to MAX_HIDDEN, that has at most `ratio` parameters for each represented weight (or 1 hidden
        unit).
        """
        budget = ratio * sum(layer.weights for layer in tiles.layers)
        widths = range(1, 1 + MAX_HIDDEN)
        hidden = bisect_right(widths, budget, key=lambda width: self.model_copy(update={"hidden": width}).parameters(tiles))
        return self.model_copy(update={"hidden": max(1, hidden)})


class Predictor(nn.Module):
    """Predicts tiles in the shapes that `Tiles.heads` lists, with one head for each."""

    def __init__(self, config: PredictorConfig, tiles: Tiles) -> None:
        super().__init__()
        self.config = config
        self.shapes = tiles.heads
        self.embedding = Embedding(config.embedding, tiles.extents)
        modules: list[nn.Module] = []
        for inputs, outputs in pairwise(config.widths):
            modules += [Linear(inputs, outputs), ACTIVATIONS[config.activation]()]
        self.trunk = nn.Sequential(*modules)
        self.heads = nn.ModuleList(Linear(config.hidden, math.prod(shape)) for shape in tiles.heads)

    @property
    def quantised(self) -> bool:
        """Whether the weights are quantised to few bits; see `quantise`."""
        return any(layer.bits for _, layer in self.linear())

    def linear(self) -> Iterator[tuple[str, Linear]]:
        """The linear layers by name, from the embedding to the heads."""
        return ((name, module) for name, module in self.named_modules() if isinstance(module, Linear))

    def quantise(self, bits: int, sparsity: float) -> None:
        """Rounds all weights to `bits` bits from now on, those of the first layer to more, and keeps that fraction of each
        layer's smallest ones at zero.
        """
        for number, (_, layer) in enumerate(self.linear()):
            magnitude = layer.weight.detach().abs().flatten()
            pruned = int(sparsity * magnitude.numel())
            smallest = magnitude.sort().values[pruned].item() if pruned else 0.0
            layer.quantise(bits if number else max(FIRST_BITS, bits + MORE_BITS), smallest)

    def centre(self) -> None:
        """Puts every weight in the middle of what is quantised like it; the predictions stay as they are."""
        for _, layer in self.linear():
            layer.centre()

    @torch.no_grad()
    def halve(self) -> None:
        """Rounds all parameters to what float16 can hold, but for tensors whose values it can't; of a quantised predictor those
        that have no codes.
        """
        for name, parameter in self.named_parameters():
            coded = self.quantised and name.endswith(("weight", "log_scales"))
            if not coded and (halved := parameter.half()).isfinite().all():
                parameter.copy_(halved)

    @contextmanager
    def halved(self) -> Iterator[None]:
        """Meanwhile, the predictor is as an artefact in half precision has it."""
        exact = {name: tensor.clone() for name, tensor in self.state_dict().items()}
        self.halve()
        try:
            yield
        finally:
            self.load_state_dict(exact)

    def features(self, layer: Tensor, filter: Tensor, tile: Tensor) -> Tensor:
        """What the heads see of n coordinates, three int64 tensors of shape (n,): float32 (n, hidden)."""
        out: Tensor = self.trunk(self.embedding(layer, filter, tile))
        return out

    def predict(self, head: int, features: Tensor) -> Tensor:
        """Tiles (n, *shape of the head) from features (n, hidden)."""
        out: Tensor = self.heads[head](features)
        return out.view(-1, *self.shapes[head])
