"""A neural representation: tiles, predictor, permutations and layer scales. Weights are rendered from it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from math import hypot, sqrt

import torch
from torch import Tensor

from nern.layers import Layer
from nern.predictor import Predictor, PredictorConfig
from nern.request.options import PermutationKind
from nern.tiles import Tiles

# So many tiles are rendered at a time. This bounds the memory of a step.
RENDER_BATCH_TILES = 16_384


class Representation:
    """Renders the weights of the represented layers.

    A tile is the prediction for the coordinate that the permutation assigns to the tile, times the scale of the layer.
    `positions` has the permutation of each layer, int64 (tiles of the layer,); see `nern.permutation`.
    """

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
        # For each tile, the index of the assigned coordinate. It takes four bytes. The weights of a tile take 36 bytes or more.
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
        """A representation whose predictor has random weights, drawn from torch's global generator.

        The scale of a layer is r^(1 - s) r_l^s, where s is `layer_scaling`, r is the root mean square of all represented
        weights, and r_l is the root mean square of the layer's weights. The scale of a layer of zeros is r. Without
        `layer_scaling`, every scale is 1.
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
        """The memory of the predictor, the tables of its embedding and the permutations, in bytes."""
        tensors = chain(self.predictor.parameters(), self.predictor.buffers(), [self._assigned])
        return sum(tensor.nbytes for tensor in tensors)

    def to(self, device: torch.device) -> "Representation":
        """Moves the representation to `device`, and returns it."""
        self.predictor.to(device)
        self._assigned = self._assigned.to(device)
        return self

    def positions(self, layer: int) -> Tensor:
        """The permutation of one layer, int64 (tiles of the layer,) on the CPU; see `nern.permutation`."""
        start, stop = self.tiles.starts[layer : layer + 2]
        return self._assigned[start:stop].cpu().long() - start

    def render(self, index: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Renders the tiles at sorted indices, int64 (n,), with gradients, on the device of the predictor.

        Yields three values for each layer that occurs: the number of the layer; the numbers of the tiles within the layer,
        int64 (m,); and the tiles, float32 (m, width, *kernel_size). With a GPU, indices on the CPU are faster than indices on
        the GPU.
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
        """All represented weights, in the shapes of the layers: float32 (filters, channels, *kernel_size) each.

        This is for training. It is faster than `nern.rendering`, but the last bits of a weight depend on the other weights
        that are rendered with it.
        """
        rendered = [
            torch.empty(self.tiles.count(number), self.tiles.width[number], *unit.kernel_size, device=self.device)
            for number, unit in enumerate(self.tiles.units)
        ]
        with torch.set_grad_enabled(gradients):
            for index in render_batches(torch.arange(len(self.tiles))):
                for layer, number, tiles in self.render(index):
                    rendered[layer][number] = tiles
            return [self.tiles.join(number, rendered[number]).reshape(layer.shape) for number, layer in enumerate(self.layers)]


def render_batches(index: Tensor) -> Sequence[Tensor]:
    """Splits indices, int64 (n,), into batches of at most RENDER_BATCH_TILES."""
    parts: Sequence[Tensor] = index.split(RENDER_BATCH_TILES)
    return parts


def root_mean_square(weights: Iterable[Tensor]) -> float:
    """The root mean square of all elements of tensors of any shapes."""
    norms, counts = zip(*((weight.double().norm().item(), weight.numel()) for weight in weights), strict=True)
    return hypot(*norms) / sqrt(sum(counts))
