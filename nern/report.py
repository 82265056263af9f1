"""An honest account of what a representation keeps and what it loses, measured on the artefact itself."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

from torch import Tensor

from nern import importance, tensorfile
from nern.artefact import Artefact, Sizes
from nern.training.config import Config, PaperConfig
from nern.training.loop import Progress
from nern.training.selection import Evaluation
from nern.training.targets import relative_error
from nern.training.trained import Trained

Report = dict[str, Any]


def make_report(
    trained: Trained,
    artefact: Artefact,
    sizes: Sizes,
    state_dict: Mapping[str, Tensor],
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Report:
    """Rebuilds the network from the artefact, as clients will, and compares it with the original.

    If the configuration wants to know which weights matter, that goes on reporting progress where the training ended.

    Relative errors are norms of the error over norms of the weights; sizes are bytes; `original` counts all tensors of
    the state_dict and `represented` those that the predictor stands for.
    """
    started, config = time.monotonic(), trained.config
    rebuilt = artefact.state_dict()
    rendering_seconds = time.monotonic() - started
    layers = artefact.representation.layers
    pairs = [(rebuilt[layer.name], state_dict[layer.name]) for layer in layers]
    comparison = (
        trained.evaluator.compare({layer.name: rebuilt[layer.name].float() for layer in layers}) if trained.evaluator else None
    )
    return {
        "distilled": trained.distilled,
        "images": comparison.images if comparison else None,
        "accuracy": {
            "original": comparison.original_accuracy if comparison else None,
            "reconstructed": comparison.accuracy if comparison else None,
        },
        "agreement": comparison.agreement if comparison else None,
        "divergence": finite(comparison.divergence) if comparison else None,
        "relative_error": {
            "overall": finite(relative_error(*zip(*pairs, strict=True))),
            "layers": [
                {"index": index, "name": layer.name, "relative_error": finite(relative_error([ours], [theirs]))}
                for index, (layer, (ours, theirs)) in enumerate(zip(layers, pairs, strict=True))
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
        "target": asdict(trained.search) if trained.search else None,
        "compression": _compression(config),
        "importance": _importance(trained, state_dict, rebuilt, on_progress) if config.importance else None,
        "best": _evaluation(trained.best),
        "last": _evaluation(trained.last),
        "seconds": {"training": trained.seconds, "rendering": rendering_seconds},
    }


def _compression(config: Config) -> dict[str, Any]:
    if isinstance(config, PaperConfig):
        return {"bits": 32, "sparsity": 0.0}
    return {"bits": config.bits, "sparsity": config.sparsity}


def _importance(
    trained: Trained, original: Mapping[str, Tensor], rebuilt: Mapping[str, Tensor], on_progress: Callable[[Progress], None]
) -> dict[str, Any]:
    assert trained.evaluator is not None, "a resolved configuration without a evaluator does not ask for importance"
    started = time.monotonic()

    def step(done: int) -> None:
        pace = (time.monotonic() - started) / done
        left = trained.config.comparisons - done
        at, steps = trained.steps + done, trained.steps + trained.config.comparisons
        on_progress(Progress("importance", at, steps, {}, None, 1 / pace, pace * left))

    layers = trained.representation.layers
    return importance.curves(original, rebuilt, layers, trained.evaluator.compare, trained.config.seed, step)


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


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensorfile.size_of(tensor.dtype, tensor.shape) for tensor in tensors)
