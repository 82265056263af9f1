"""Which weights matter? (arXiv 2212.13554, section 5.) What a predictor rebuilds badly tends to be unimportant.

Every weight of the original network gets a score; the lowest-scored ones are set to zero, and what that costs is measured. The
published scores are the reconstruction errors, negated: absolute, or relative to the weight. Random scores and magnitudes
are what to compare with. Structured variants score whole kernels or filters by the mean of their weights' scores.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from nern.evaluation import Comparison
from nern.layers import Layer
from nern.randomness import generator

Score = Literal["relative error", "absolute error", "magnitude", "random"]
Part = Literal["weight", "kernel", "filter"]

SCORES: tuple[Score, ...] = get_args(Score)
PARTS: tuple[Part, ...] = get_args(Part)

# Of the weights, that are set to zero.
FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

# Networks that are compared in all.
PRUNED_NETWORKS = len(SCORES) * len(PARTS) * len(FRACTIONS)

Weights = Mapping[str, Tensor]


def score(original: Tensor, rebuilt: Tensor, by: Score, part: Part, rng: torch.Generator) -> Tensor:
    """How important each weight of a layer (filters, channels, ...) is; equal for all weights of one part; same shape.

    A weight of zero has no relative error: it does not count in the mean of its part, and alone it is the least important.
    """
    axes = {"weight": original.ndim, "kernel": 2, "filter": 1}[part]
    parts, rebuilt_parts = (weight.reshape(*original.shape[:axes], -1) for weight in (original, rebuilt))
    if by == "random":
        scores = torch.rand(parts.shape[:-1], generator=rng)
    elif by == "magnitude":
        scores = parts.abs().mean(-1)
    elif by == "absolute error":
        scores = -(parts - rebuilt_parts).abs().mean(-1)
    else:
        error = ((parts - rebuilt_parts) / parts).abs().masked_fill(parts == 0, torch.nan)
        scores = -error.nanmean(-1).nan_to_num(torch.finfo(error.dtype).max)
    return scores[..., None].expand_as(parts).reshape(original.shape)


def pruned(weights: Weights, scores: Sequence[Tensor], fraction: float) -> dict[str, Tensor]:
    """The weights with that fraction of all, the lowest-scored ones of the whole network, at zero.

    Parts of equal score stay together, so that a little more or less than the fraction may go.
    """
    every = torch.cat([one.flatten() for one in scores])
    count = round(fraction * len(every))
    threshold = every.kthvalue(count).values if count else every.new_tensor(-torch.inf)
    return {name: weight * (one > threshold) for (name, weight), one in zip(weights.items(), scores, strict=True)}


def curves(
    original: Weights,
    rebuilt: Weights,
    layers: Sequence[Layer],
    compare: Callable[[Weights], Comparison],
    seed: int,
    on_step: Callable[[int], None],
) -> dict[str, Any]:
    """What pruning costs: accuracy (without labels: agreement with the original network) by part, score and fraction.

    `on_step` is called with the number of networks that have been compared.
    """
    named = {layer.name: original[layer.name].float() for layer in layers}
    results: dict[str, dict[str, list[float]]] = {part: {by: [] for by in SCORES} for part in PARTS}
    metric = ""
    for done, (part, by, comparison) in enumerate(_compared(named, rebuilt, compare, seed), start=1):
        metric = "agreement" if comparison.accuracy is None else "accuracy"
        results[part][by].append(comparison.agreement if comparison.accuracy is None else comparison.accuracy)
        on_step(done)
    return {"metric": metric, "fractions": list(FRACTIONS), "curves": results}


def _compared(
    original: Weights, rebuilt: Weights, compare: Callable[[Weights], Comparison], seed: int
) -> Iterator[tuple[Part, Score, Comparison]]:
    for part, by in product(PARTS, SCORES):
        scores = [
            score(weight, rebuilt[name].float(), by, part, generator(seed, f"importance of {name}"))
            for name, weight in original.items()
        ]
        for fraction in FRACTIONS:
            yield part, by, compare(pruned(original, scores, fraction))
