"""The report of a predictor: how well the rebuilt network does what the original network does, and at how many bytes."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

from torch import Tensor

from nern import importance, tensorfile
from nern.artefact import Artefact, PartBytes
from nern.measures import OutputComparison, Quality
from nern.training.progress import OnProgress, of_pruning, silently
from nern.training.selection import Evaluation
from nern.training.targets import relative_error
from nern.training.trained import SearchResult, Trained

Report = dict[str, Any]


def make_report(
    trained: Trained,
    artefact: Artefact,
    nbytes: PartBytes,
    state_dict: Mapping[str, Tensor],
    on_progress: OnProgress = silently,
) -> Report:
    """Rebuilds the network from the artefact, as clients do, and compares the rebuilt network with the original.

    docs/report.md explains every field. A relative error is the norm of the error over the norm of the weights. Under `bytes`,
    `original` counts all tensors of the state_dict, and `represented` the tensors that the predictor represents. If the plan
    has pruned networks, their evaluation is reported to `on_progress` after the last step of the training.
    """
    started = time.monotonic()
    rebuilt = artefact.state_dict()
    rendering_seconds = time.monotonic() - started
    layers = artefact.representation.layers
    forms = artefact.forms.values()
    # The first tensor of a form is the rendered weight.
    rebuilt |= {form.weight: rebuilt[form.parts[0]] for form in forms}
    original = {**state_dict, **{form.weight: form.compute(state_dict) for form in forms}}
    pairs = [(rebuilt[layer.name], original[layer.name]) for layer in layers]
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
        "outputs": [output_figures(output) for output in comparison.outputs] if comparison else [],
        "relative_error": {
            "overall": finite(relative_error(*zip(*pairs, strict=True))),
            "layers": [
                {"index": index, "name": layer.name, "relative_error": finite(relative_error([weight], [target]))}
                for index, (layer, (weight, target)) in enumerate(zip(layers, pairs, strict=True))
            ],
        },
        "bytes": {
            "predictor": nbytes.predictor,
            "permutation": nbytes.permutation,
            "kept": nbytes.kept,
            "graph": nbytes.graph,
            "total": nbytes.total,
            "represented": _bytes(original[layer.name] for layer in layers),
            "original": _bytes(tensor for name, tensor in state_dict.items() if name not in artefact.aliases),
        },
        "parameters": sum(parameter.numel() for parameter in artefact.representation.predictor.parameters()),
        "target": _target(trained.search) if trained.search else None,
        "compression": {"bits": trained.plan.bits, "sparsity": trained.plan.sparsity},
        "importance": (_importance(trained, original, rebuilt, on_progress) if trained.plan.pruned_networks else None),
        "best": _evaluation(trained.best),
        "last": _evaluation(trained.last),
        "seconds": {"training": trained.seconds, "rendering": rendering_seconds},
    }


def output_figures(output: OutputComparison) -> dict[str, Any]:
    """The figures about one output as JSON values. A figure that is not finite is None."""
    return {
        "name": output.name,
        "objective": output.objective,
        "relative_error": finite(output.relative_error),
        "psnr": finite(output.psnr),
        "agreement": output.agreement,
        "divergence": finite(output.divergence),
        "accuracy": {"original": output.original_accuracy, "reconstructed": output.accuracy},
        "quality": {"original": _quality(output.original_quality), "reconstructed": _quality(output.quality)},
    }


def _quality(quality: Quality | None) -> dict[str, Any] | None:
    return None if quality is None else {"mse": finite(quality.mse), "psnr": finite(quality.psnr)}


def _target(search: SearchResult) -> dict[str, Any]:
    return {"drop": search.drop, "met": search.met, "sizes": [asdict(trial) for trial in search.trials]}


def _importance(
    trained: Trained, original: Mapping[str, Tensor], rebuilt: Mapping[str, Tensor], on_progress: OnProgress
) -> dict[str, Any]:
    assert trained.evaluator is not None, "only plans with a teacher have pruned networks"
    started, plan = time.monotonic(), trained.plan

    def report(networks: int) -> None:
        on_progress(of_pruning(plan, steps=trained.steps, networks=networks, seconds=time.monotonic() - started))

    layers = trained.representation.layers
    return importance.curves(original, rebuilt, layers, trained.evaluator.compare, plan.request.seed, report)


def finite(value: float | None) -> float | None:
    """The value, or None if it is not finite. JSON (RFC 8259) has neither infinity nor NaN."""
    return value if value is not None and isfinite(value) else None


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    comparison = evaluation.comparison
    return {
        "step": evaluation.step,
        "relative_error": finite(evaluation.relative_error),
        **{name: finite(getattr(comparison, name, None)) for name in ("accuracy", "agreement", "divergence")},
        "outputs": [output_figures(output) for output in comparison.outputs] if comparison else [],
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensorfile.nbytes_of(tensor.dtype, tensor.shape) for tensor in tensors)
