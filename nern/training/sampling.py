"""Which kernels a step trains on."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def shuffled(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of sorted kernel indices; every kernel comes once before any comes again."""
    batch = min(batch, count)
    order = torch.empty(0, dtype=torch.int64)
    while True:
        if len(order) < batch:
            # The next round begins with other kernels than those left of this one, so that no batch has one twice.
            again = torch.randperm(count, generator=generator)
            left = torch.isin(again, order)
            order = torch.cat([order, again[~left], again[left]])
        yield order[:batch].sort().values
        order = order[batch:]


def uniform_or_by_magnitude(
    weights: Sequence[Tensor], batch: int, probability: float, generator: torch.Generator
) -> Iterator[Tensor]:
    """Endless batches without replacement: uniform, or with `probability` in proportion to the kernels' norms.

    The published "magnitude-oriented batching" (arXiv 2212.13554, section 4.3).
    """
    norms = torch.cat([weight.cpu().double().flatten(0, 1).flatten(1).norm(dim=1) for weight in weights])
    drawable = min(batch, int(norms.count_nonzero()))
    while True:
        if torch.rand((), generator=generator) < probability and drawable:
            # The smallest of exponential variables with these rates (Efraimidis and Spirakis, 2006): for any number of kernels.
            keys = torch.empty_like(norms).exponential_(generator=generator) / norms
            yield keys.topk(drawable, largest=False).indices.sort().values
        else:
            yield torch.randperm(len(norms), generator=generator)[:batch].sort().values
