"""The predictor: an MLP that maps the embedding of a coordinate to the weights of a tile."""

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

# The first linear layer has at least FIRST_BITS bits, and MORE_BITS bits more than the other layers. With equal bits, a weight
# of the first layer contributes about 17 times as much to the error as another weight (bench/NOTEBOOK.md). Each further bit
# divides the contribution by four.
FIRST_BITS, MORE_BITS = 8, 2


class PredictorConfig(BaseModel):
    """The shape of a predictor: `depth` linear layers with activation functions between them.

    The layers map the embedding to `hidden` numbers, these to `hidden` numbers again, and so on. The last layer is a head; it
    maps `hidden` numbers to the weights of a tile.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding: EmbeddingConfig
    hidden: int = Field(ge=1)
    depth: int = Field(ge=2, description="Linear layers, the head included")
    activation: ActivationKind

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of the embedding, followed by the width of each hidden layer."""
        return (self.embedding.width, *[self.hidden] * (self.depth - 1))

    @property
    def activations(self) -> int:
        """The number of activations that a backward pass needs for each tile."""
        return self.embedding.width + 2 * self.hidden * (self.depth - 1)

    def parameters(self, tiles: Tiles) -> int:
        """The number of parameters of a predictor for these tiles, the learned part of the embedding included."""
        trunk = sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.widths))
        heads = (self.hidden + 1) * sum(math.prod(shape) for shape in tiles.heads)
        return trunk + heads + self.embedding.parameters(len(tiles.layers))

    def within(self, ratio: float, tiles: Tiles) -> "PredictorConfig":
        """The widest predictor that has at most `ratio` parameters for each represented weight.

        The width is at least 1 and at most MAX_HIDDEN.
        """
        budget = ratio * sum(layer.weights for layer in tiles.layers)
        widths = range(1, 1 + MAX_HIDDEN)
        hidden = bisect_right(widths, budget, key=lambda width: self.model_copy(update={"hidden": width}).parameters(tiles))
        return self.model_copy(update={"hidden": max(1, hidden)})


class Predictor(nn.Module):
    """Predicts tiles from their coordinates. There is one head for each shape of tile in `Tiles.heads`."""

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
        """Whether `quantise` was called."""
        return any(layer.bits for _, layer in self.linear())

    def linear(self) -> Iterator[tuple[str, Linear]]:
        """The linear layers and their names, from the first layer to the heads."""
        return ((name, module) for name, module in self.named_modules() if isinstance(module, Linear))

    def quantise(self, bits: int, sparsity: float) -> None:
        """Begins to quantise the weights of all layers to `bits` bits; the first layer has more (FIRST_BITS, MORE_BITS).

        In each layer, the fraction `sparsity` of the weights is pruned: the smallest weights stay 0.
        """
        for number, (_, layer) in enumerate(self.linear()):
            magnitude = layer.weight.detach().abs().flatten()
            pruned = int(sparsity * magnitude.numel())
            smallest = magnitude.sort().values[pruned].item() if pruned else 0.0
            layer.quantise(bits if number else max(FIRST_BITS, bits + MORE_BITS), smallest)

    def centre(self) -> None:
        """Sets every weight to the value that it is quantised to. The predictions do not change."""
        for _, layer in self.linear():
            layer.centre()

    @torch.no_grad()
    def halve(self) -> None:
        """Rounds the parameters to what float16 can hold.

        A tensor with a value outside the range of float16 is not rounded. In a quantised predictor, weights and scales are not
        rounded, because each forward pass quantises them.
        """
        for name, parameter in self.named_parameters():
            coded = self.quantised and name.endswith(("weight", "log_scales"))
            if not coded and (halved := parameter.half()).isfinite().all():
                parameter.copy_(halved)

    @contextmanager
    def halved(self) -> Iterator[None]:
        """A context in which the parameters are rounded as `halve` does it. At its end they are restored."""
        exact = {name: tensor.clone() for name, tensor in self.state_dict().items()}
        self.halve()
        try:
            yield
        finally:
            self.load_state_dict(exact)

    def features(self, layer: Tensor, filter: Tensor, tile: Tensor) -> Tensor:
        """The inputs of the heads for n coordinates: three int64 tensors (n,) to float32 (n, hidden)."""
        out: Tensor = self.trunk(self.embedding(layer, filter, tile))
        return out

    def predict(self, head: int, features: Tensor) -> Tensor:
        """The tiles that one head predicts: features, float32 (n, hidden), to float32 (n, *shape of the head)."""
        out: Tensor = self.heads[head](features)
        return out.view(-1, *self.shapes[head])
