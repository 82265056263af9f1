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

from nern.chance import generator
from nern.evaluation import Comparison
from nern.layers import Layer

Score = Literal["relative error", "absolute error", "magnitude", "random"]
Part = Literal["weight", "kernel", "filter"]

SCORES: tuple[Score, ...] = get_args(Score)
PARTS: tuple[Part, ...] = get_args(Part)

# Of the weights, that are set to zero.
FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

# Networks that are compared in all.
COMPARISONS = len(SCORES) * len(PARTS) * len(FRACTIONS)

TINY = 1e-12

Weights = Mapping[str, Tensor]


def score(original: Tensor, rebuilt: Tensor, by: Score, part: Part, chance: torch.Generator) -> Tensor:
    """How important each weight of a layer (filters, channels, ...) is; equal for all weights of one part; same shape."""
    error = (original - rebuilt).abs()
    if by == "relative error":
        scores = -error / original.abs().clamp_min(TINY)
    elif by == "absolute error":
        scores = -error
    elif by == "magnitude":
        scores = original.abs()
    else:
        scores = torch.rand(original.shape, generator=chance)
    if part == "weight":
        return scores
    of_parts = scores.reshape(*scores.shape[: 2 if part == "kernel" else 1], -1)
    return of_parts.mean(-1, keepdim=True).expand_as(of_parts).reshape(scores.shape)


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
