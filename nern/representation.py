"""A neural representation: the tiles it stands for, the predictor, and what turns its predictions into weights."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from math import hypot, sqrt

import torch
from torch import Tensor

from nern.layers import Layer
from nern.predictor import Predictor, PredictorConfig
from nern.request.options import PermutationKind
from nern.tiles import Tiles

# Tiles rendered at a time.
RENDER_BATCH_TILES = 16_384


class Representation:
    """Predicts every tile of some layers: what the predictor says at its permuted coordinate, times the layer's scale."""

    def __init__(
        self,
        tiles: Tiles,
        predictor: Predictor,
        *,
        permutation: PermutationKind,
        positions: Sequence[Tensor],
        scales: Sequence[float],
    ) -> None:
        self.tiles = tiles
        self.predictor = predictor
        self.permutation: PermutationKind = permutation
        self.scales = tuple(scales)
        # Flat index -> flat index of the coordinate assigned: four bytes a tile, where a tile itself has 36 or more.
        assigned = [(start + position.cpu()).int() for start, position in zip(tiles.starts, positions, strict=False)]
        self._assigned = torch.cat(assigned).to(self.device)

    @classmethod
    def untrained(
        cls,
        tiles: Tiles,
        state_dict: Mapping[str, Tensor],
        config: PredictorConfig,
        *,
        permutation: PermutationKind,
        positions: Sequence[Tensor],
        layer_scaling: float | None,
    ) -> "Representation":
        """A predictor with fresh weights, from torch's global generator.

        A layer's scale is the root mean square of all weights to the power of 1 - `layer_scaling`, times that of its own to
        the power of `layer_scaling`; of a layer of zeros it is the former, and without `layer_scaling` it is 1.
        """
        magnitudes = [root_mean_square([state_dict[layer.name]]) for layer in tiles.layers]
        whole = root_mean_square([state_dict[layer.name] for layer in tiles.layers]) or 1.0
        scales = [
            1.0 if layer_scaling is None else whole ** (1 - layer_scaling) * (magnitude or whole) ** layer_scaling
            for magnitude in magnitudes
        ]
        return cls(tiles, Predictor(config, tiles), permutation=permutation, positions=positions, scales=scales)

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.tiles.layers

    @property
    def device(self) -> torch.device:
        return self.predictor.embedding.layer.device

    @property
    def nbytes(self) -> int:
        """Of memory: the predictor, its embedding's tables and the permutation."""
        tensors = chain(self.predictor.parameters(), self.predictor.buffers(), [self._assigned])
        return sum(tensor.nbytes for tensor in tensors)

    def to(self, device: torch.device) -> "Representation":
        """The same representation, on `device`."""
        self.predictor.to(device)
        self._assigned = self._assigned.to(device)
        return self

    def positions(self, layer: int) -> Tensor:
        """The permutation of one layer; see `nern.permutation`."""
        start, stop = self.tiles.starts[layer : layer + 2]
        return self._assigned[start:stop].cpu().long() - start

    def render(self, index: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Tiles at sorted flat indices (n,), with gradients, where the predictor is. The indices are best given on the CPU.

        For each layer that occurs: its number, the numbers of the tiles in the layer (m,), and the tiles in float32 (m, width,
        *kernel_size).
        """
        moved = index.to(self.device)
        features = self.predictor.features(*self.tiles.of(self._assigned[moved].long()))
        for head, stretch in groupby(self.tiles.by_layer(index), key=lambda part: self.tiles.head[part[0]]):
            parts = list(stretch)
            first = parts[0][1].start
            predicted = self.predictor.predict(head, features[first : parts[-1][1].stop])
            for layer, where in parts:
                tiles = self.tiles.crop(layer, predicted[where.start - first : where.stop - first])
                yield layer, moved[where] - self.tiles.starts[layer], tiles * self.scales[layer]

    def render_all(self, *, gradients: bool = False) -> list[Tensor]:
        """All represented weights in float32, in the shapes of the layers.

        For training: faster than `nern.rendering`, but the last bits depend on what is rendered together.
        """
        rendered = [
            torch.empty(self.tiles.count(number), self.tiles.width[number], *layer.kernel_size, device=self.device)
            for number, layer in enumerate(self.layers)
        ]
        with torch.set_grad_enabled(gradients):
            for index in render_batches(torch.arange(len(self.tiles))):
                for layer, number, some in self.render(index):
                    rendered[layer][number] = some
            return [self.tiles.join(number, rendered[number]).reshape(layer.shape) for number, layer in enumerate(self.layers)]


def render_batches(index: Tensor) -> Sequence[Tensor]:
    """Flat indices in parts to be rendered at a time: bounds the memory of a step, whatever the network's size."""
    parts: Sequence[Tensor] = index.split(RENDER_BATCH_TILES)
    return parts


def root_mean_square(weights: Iterable[Tensor]) -> float:
    """Of all elements of all tensors; 0 for zeros."""
    norms, counts = zip(*((weight.double().norm().item(), weight.numel()) for weight in weights), strict=True)
    return hypot(*norms) / sqrt(sum(counts))
