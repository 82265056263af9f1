"""Which tiles a step trains on: a function of the seed and the step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nern.randomness import generator


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
    """Batches of sorted tile indices: uniform without replacement, or with `probability` in proportion to the tiles' norms
    with replacement.

    The published "magnitude-oriented batching" (arXiv 2212.13554, section 4.3).
    """

    def __init__(self, tiles: Sequence[Tensor], batch: int, probability: float, seed: int) -> None:
        self._cumulative = torch.cat([some.cpu().double().flatten(1).norm(dim=1) for some in tiles]).cumsum(0)
        self._batch = min(batch, len(self._cumulative))
        self._probability = probability
        self._seed = seed

    def batch(self, step: int) -> Tensor:
        """The batch of the step-th step, which counts from 0."""
        rng = generator(self._seed, "tiles", step)
        total = self._cumulative[-1]
        if torch.rand((), generator=rng) < self._probability and total > 0:
            # Not torch.multinomial, which takes no more than 2^24 weights.
            drawn = torch.rand(self._batch, generator=rng, dtype=torch.float64) * total
            return torch.searchsorted(self._cumulative, drawn, right=True).sort().values
        return torch.randperm(len(self._cumulative), generator=rng)[: self._batch].sort().values
