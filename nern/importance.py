"""The importance of weights, by pruning (arXiv 2212.13554, section 5).

The authors found that weights with a large reconstruction error tend to be unimportant. To test this, every weight of the
original network gets a score. The weights with the lowest scores are set to 0, and the pruned network is compared with the
original network. The published scores are the negated reconstruction errors, absolute or relative to the weight. Magnitudes
and random numbers are scores to compare with. A whole kernel or filter is scored by the mean of the scores of its weights.
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

# Fractions of the represented weights that are pruned.
FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

# The number of pruned networks that are compared with the original network.
PRUNED_NETWORKS = len(SCORES) * len(PARTS) * len(FRACTIONS)

Weights = Mapping[str, Tensor]


def score(original: Tensor, rebuilt: Tensor, by: Score, part: Part, rng: torch.Generator) -> Tensor:
    """The scores of the weights of a layer: two tensors (filters, channels, ...) to one of the same shape.

    A higher score means a more important weight. All weights of one kernel or filter have the same score if `part` says so. A
    weight of 0 has no relative error. It does not count in the mean of its kernel or filter. As a single weight, or in a
    kernel or filter of zeros, it has the lowest score.
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
    """The weights by name, in which the fraction of all weights that has the lowest scores is set to 0; same shapes.

    `scores` has a tensor in the shape of each weight. All weights with a score up to the threshold are pruned, so that a little
    more than the fraction may be pruned.
    """
    all_scores = torch.cat([of_layer.flatten() for of_layer in scores])
    count = round(fraction * len(all_scores))
    threshold = all_scores.kthvalue(count).values if count else all_scores.new_tensor(-torch.inf)
    return {name: weight * (of_layer > threshold) for (name, weight), of_layer in zip(weights.items(), scores, strict=True)}


def curves(
    original: Weights,
    rebuilt: Weights,
    layers: Sequence[Layer],
    compare: Callable[[Weights], Comparison],
    seed: int,
    on_step: Callable[[int], None],
) -> dict[str, Any]:
    """How well the pruned networks work, by part, score and fraction.

    The metric is the accuracy; without labels, the agreement with the original network; and for outputs that hold values, the
    output error (the rank of the comparison). `original` and `rebuilt` have the weights of the layers by name. `compare`
    compares a network of such weights with the original network. `on_step` is called with the number of networks that have
    been compared.
    """
    named = {layer.name: original[layer.name].float() for layer in layers}
    results: dict[str, dict[str, list[float]]] = {part: {by: [] for by in SCORES} for part in PARTS}
    metric = ""
    for done, (part, by, comparison) in enumerate(_compared(named, rebuilt, compare, seed), start=1):
        metric, value = _measured(comparison)
        results[part][by].append(value)
        on_step(done)
    return {"metric": metric, "fractions": list(FRACTIONS), "curves": results}


def _measured(comparison: Comparison) -> tuple[str, float]:
    if comparison.accuracy is not None:
        return "accuracy", comparison.accuracy
    if comparison.agreement is not None:
        return "agreement", comparison.agreement
    return "output_error", comparison.rank


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
