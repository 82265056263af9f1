"""Batches of tiles. The tiles of a batch depend only on the seed and the step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nern.randomness import generator


class Shuffled:
    """Batches of at most `batch` of `count` tiles. In each epoch, every tile is in one batch."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._batches = -(-count // batch)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def batch(self, step: int) -> Tensor:
        """The sorted indices of the tiles of a step: int64 (tiles,). Steps count from 0."""
        epoch, number = divmod(step, self._batches)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.randperm(self._count, generator=generator(self._seed, "tiles", epoch))
        return self._order.tensor_split(self._batches)[number].sort().values


class UniformOrByMagnitude:
    """Batches of at most `batch` tiles: the published "magnitude-oriented batching" (arXiv 2212.13554, section 4.3).

    With `probability`, the tiles of a step are drawn with replacement, in proportion to their norms. Otherwise they are drawn
    uniformly without replacement. `tiles` has the tiles of each layer, (tiles, width, *kernel_size).
    """

    def __init__(self, tiles: Sequence[Tensor], batch: int, probability: float, seed: int) -> None:
        self._cumulative = torch.cat([of_layer.cpu().double().flatten(1).norm(dim=1) for of_layer in tiles]).cumsum(0)
        self._batch = min(batch, len(self._cumulative))
        self._probability = probability
        self._seed = seed

    def batch(self, step: int) -> Tensor:
        """The sorted indices of the tiles of a step: int64 (tiles,). Steps count from 0."""
        rng = generator(self._seed, "tiles", step)
        total = self._cumulative[-1]
        if torch.rand((), generator=rng) < self._probability and total > 0:
            # torch.multinomial would be limited to 2^24 tiles.
            drawn = torch.rand(self._batch, generator=rng, dtype=torch.float64) * total
            return torch.searchsorted(self._cumulative, drawn, right=True).sort().values
        return torch.randperm(len(self._cumulative), generator=rng)[: self._batch].sort().values
