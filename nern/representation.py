"""A neural representation: the tiles it stands for, the predictor, and what turns its predictions into weights."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import hypot, sqrt

import torch
from torch import Tensor

from nern.layers import Layer
from nern.permutation import PermutationKind
from nern.predictor import Predictor, PredictorConfig
from nern.tiles import Tiles


class Representation:
    """Predicts every tile of some layers: `scale` times what the predictor says at the tile's permuted coordinate."""

    def __init__(
        self,
        tiles: Tiles,
        predictor: Predictor,
        *,
        permutation: PermutationKind,
        positions: Sequence[Tensor],
        scale: float,
    ) -> None:
        self.tiles = tiles
        self.predictor = predictor
        self.permutation: PermutationKind = permutation
        self.scale = scale
        # Flat index -> flat index of the coordinate assigned: four bytes a tile, where a tile itself has 36 or more.
        assigned = [(start + position).int() for start, position in zip(tiles.starts, positions, strict=False)]
        self._assigned = torch.cat(assigned)

    @classmethod
    def untrained(
        cls,
        tiles: Tiles,
        state_dict: Mapping[str, Tensor],
        config: PredictorConfig,
        *,
        permutation: PermutationKind,
        positions: Sequence[Tensor],
        scaled: bool,
    ) -> "Representation":
        """A predictor with fresh weights, from torch's global generator.

        `scaled` makes the root mean square of all that it has to predict 1, whatever the size of the weights.
        """
        norm = hypot(*(state_dict[layer.name].double().norm().item() for layer in tiles.layers))
        scale = norm / sqrt(sum(layer.weights for layer in tiles.layers)) if scaled and norm else 1.0
        return cls(tiles, Predictor(config, tiles), permutation=permutation, positions=positions, scale=scale)

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.tiles.layers

    @property
    def device(self) -> torch.device:
        return self.predictor.embedding.layer.device

    def to(self, device: torch.device) -> "Representation":
        """The same representation, its predictor on `device`."""
        self.predictor.to(device)
        return self

    def positions(self, layer: int) -> Tensor:
        """The permutation of one layer; see `nern.permutation`."""
        start, stop = self.tiles.starts[layer : layer + 2]
        return self._assigned[start:stop].long() - start

    def render(self, index: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Tiles at sorted flat indices (n,), with gradients, where the predictor is: for each layer that occurs, its number,
        the tiles' numbers inside it, and the tiles (m, width, *size) in float32.
        """
        coordinate = self.tiles.of(self._assigned[index].long())
        features = self.predictor.features(*(axis.to(self.device) for axis in coordinate))
        for head, stretch in groupby(self.tiles.by_layer(index), key=lambda part: self.tiles.head[part[0]]):
            parts = list(stretch)
            first = parts[0][1].start
            predicted = self.predictor.predict(head, features[first : parts[-1][1].stop]) * self.scale
            for layer, where, number in parts:
                yield layer, number, self.tiles.crop(layer, predicted[where.start - first : where.stop - first])
