"""An honest account of what a representation keeps and what it loses, measured on the artefact itself."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from math import hypot, isfinite
from typing import Any

from torch import Tensor

from nern import tensorfile
from nern.artefact import Artefact, Sizes
from nern.training.selection import Evaluation
from nern.training.train import Trained

Report = dict[str, Any]


def make_report(trained: Trained, artefact: Artefact, sizes: Sizes, state_dict: Mapping[str, Tensor]) -> Report:
    """Rebuilds the network from the artefact, as clients will, and compares it with the original.

    Relative errors are norms of the error over norms of the weights; sizes are bytes; `original` counts all tensors of
    the state_dict and `represented` those that the predictor stands for.
    """
    started = time.monotonic()
    rebuilt = artefact.state_dict()
    rendering_seconds = time.monotonic() - started
    layers = artefact.representation.layers
    norms = [state_dict[layer.name].double().norm().item() for layer in layers]
    errors = [(rebuilt[layer.name].double() - state_dict[layer.name].double()).norm().item() for layer in layers]
    comparison = trained.judge.compare({layer.name: rebuilt[layer.name].float() for layer in layers}) if trained.judge else None
    return {
        "distilled": comparison is not None,
        "images": comparison.images if comparison else None,
        "accuracy": {
            "original": comparison.original_accuracy if comparison else None,
            "reconstructed": comparison.accuracy if comparison else None,
        },
        "agreement": comparison.agreement if comparison else None,
        "divergence": finite(comparison.divergence) if comparison else None,
        "relative_error": {
            "overall": _ratio(hypot(*errors), hypot(*norms)),
            "layers": [
                {"index": index, "name": layer.name, "relative_error": _ratio(error, norm)}
                for index, (layer, error, norm) in enumerate(zip(layers, errors, norms, strict=True))
            ],
        },
        "bytes": {
            "predictor": sizes.predictor,
            "permutation": sizes.permutation,
            "kept": sizes.kept,
            "total": sizes.total,
            "represented": _bytes(state_dict[layer.name] for layer in layers),
            "original": _bytes(state_dict.values()),
        },
        "parameters": sum(parameter.numel() for parameter in artefact.representation.predictor.parameters()),
        "best": _evaluation(trained.best),
        "last": _evaluation(trained.last),
        "seconds": {"training": trained.seconds, "rendering": rendering_seconds},
    }


def finite(value: float | None) -> float | None:
    """The value, or None where JSON has no word for it."""
    return value if value is not None and isfinite(value) else None


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    comparison = asdict(evaluation.comparison) if evaluation.comparison else {}
    return {
        "step": evaluation.step,
        "relative_error": finite(evaluation.relative_error),
        **{name: finite(comparison.get(name)) for name in ("accuracy", "agreement", "divergence")},
    }


def _ratio(error: float, norm: float) -> float:
    return error / norm if norm else error


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensorfile.size_of(tensor.dtype, tensor.shape) for tensor in tensors)
