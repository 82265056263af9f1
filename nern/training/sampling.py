"""Which tiles a step trains on: a function of the seed and the step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nern.chance import generator


class Shuffled:
    """Batches of sorted tile indices; every round draws each tile once, in at most `batch` at a time."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._batches = -(-count // batch)
        self._round = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def batch(self, step: int) -> Tensor:
        """The batch of the step-th step, which counts from 0."""
        round, part = divmod(step, self._batches)
        if round != self._round:
            self._round = round
            self._order = torch.randperm(self._count, generator=generator(self._seed, "tiles", round))
        return self._order.tensor_split(self._batches)[part].sort().values


class UniformOrByMagnitude:
    """Batches without replacement: uniform, or with `probability` in proportion to the tiles' norms.

    The published "magnitude-oriented batching" (arXiv 2212.13554, section 4.3).
    """

    def __init__(self, tiles: Sequence[Tensor], batch: int, probability: float, seed: int) -> None:
        self._norms = torch.cat([some.cpu().double().flatten(1).norm(dim=1) for some in tiles])
        self._drawable = min(batch, int(self._norms.count_nonzero()))
        self._batch = batch
        self._probability = probability
        self._seed = seed

    def batch(self, step: int) -> Tensor:
        """The batch of the step-th step, which counts from 0."""
        chance = generator(self._seed, "tiles", step)
        if torch.rand((), generator=chance) < self._probability and self._drawable:
            # The smallest of exponential variables with these rates (Efraimidis and Spirakis, 2006): for any number of tiles.
            keys = torch.empty_like(self._norms).exponential_(generator=chance) / self._norms
            return keys.topk(self._drawable, largest=False).indices.sort().values
        return torch.randperm(len(self._norms), generator=chance)[: self._batch].sort().values
