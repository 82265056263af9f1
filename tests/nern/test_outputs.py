"""Trainings of networks whose outputs are not the logits of one classifier."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

from nern.errors import UnusableImages
from nern.images import Images, Noise
from nern.inputs import Inputs
from nern.network import Network
from nern.report import make_report
from nern.request import AccuracyTarget, DecoupledRequest, PaperRequest, RegularisedRequest, TrainingRequest
from nern.training import Progress, Snapshot, Trained, train
from nern.training.teacher import Data
from tests.support import programs
from tests.support.networks import images
from tests.support.programs import Denoiser, Pair, Segmenter, TwoHeads, TwoInputs, made
from tests.support.representations import opened, written


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@cache
def denoiser() -> Network:
    return programs.network(made(Denoiser), rand(2, 1, 8, 8))


@cache
def segmenter(*, softmax: bool = False) -> Network:
    return programs.network(made(Segmenter, softmax=softmax), rand(2, 3, 8, 8))


@cache
def two_heads() -> Network:
    return programs.network(made(TwoHeads), rand(2, 3, 8, 8))


@cache
def two_inputs() -> Network:
    words = torch.randint(10, (2, 3))
    return programs.network(made(TwoInputs), rand(2, 3, 8, 8), words)


@cache
def pair() -> Network:
    return programs.network(made(Pair), rand(2, 1, 8, 8), rand(2, 2, 8, 8))


@cache
def simple(kind: Callable[[], nn.Module], *shape: int) -> Network:
    torch.manual_seed(0)
    return programs.network(kind(), rand(2, *shape))


def normed_sound() -> nn.Module:
    """The 1-D network, with weight norm in its convolutions."""
    module = programs.sound()
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv1d):
            nn.utils.parametrizations.weight_norm(layer)
    return module


WORDS = torch.randint(10, (40, 3), generator=torch.Generator().manual_seed(1))

SHORT: dict[str, Any] = {"steps": 60, "reconstruction_steps": 15, "hidden": 24, "image_batch": 16}
QUICK = DecoupledRequest(**SHORT, distillation_learning_rate=0.01)

CASES: dict[str, tuple[Callable[[], Network], Data, TrainingRequest]] = {
    "denoiser": (denoiser, Inputs({"noisy": rand(40, 1, 8, 8)}, rand(40, 1, 8, 8, seed=1)), QUICK),
    "denoiser, noise": (denoiser, Noise("normal", (1, 8, 8)), QUICK),
    "denoiser, feature maps": (denoiser, Noise("normal", (1, 8, 8)), QUICK.with_values({"feature_map_weight": 0.1})),
    "dense classes": (segmenter, images(), QUICK.with_values({"objective": "classes"})),
    "dense classes, softmax": (lambda: segmenter(softmax=True), images(), QUICK),
    "two outputs": (two_heads, images(labelled=True), QUICK),
    "two inputs": (two_inputs, Inputs({"image": rand(40, 3, 8, 8), "words": WORDS}), QUICK),
    "matched noise": (pair, Noise("matched", (1, 8, 8), ((2, 8, 8),)), QUICK),
    "1-D": (lambda: simple(programs.sound, 1, 32), Inputs({"wave": rand(40, 1, 32)}), QUICK),
    "weight norm": (lambda: simple(normed_sound, 1, 32), Inputs({"wave": rand(40, 1, 32)}), QUICK),
    "3-D": (lambda: simple(programs.volume, 1, 6, 6, 6), Inputs({"scan": rand(40, 1, 6, 6, 6)}), QUICK),
    "smoothing": (
        denoiser,
        Noise("normal", (1, 8, 8)),
        RegularisedRequest(**SHORT, smoothing_steps=4, distillation_learning_rate=0.01),
    ),
    "paper": (
        segmenter,
        images(),
        PaperRequest(
            steps=60,
            hidden=24,
            image_batch=16,
            logit_weight=0.5,
            learning_rate=0.05,
            layer_scaling=0.5,
            objective="classes",
        ),
    ),
}


def short(request: TrainingRequest) -> TrainingRequest:
    return request.with_values({"synthesised_images": 1, "synthesis_steps": 3})


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_network_is_distilled(case: str) -> None:
    network, data, request = CASES[case]
    seen: list[Progress] = []
    with patch("nern.training.loop.MIN_EVALUATION_STEPS", 5):
        trained = train(network(), short(request), data=data, on_progress=seen.append)
    distilled = [now.losses["distillation"] for now in seen if now.phase == "distillation"]
    assert sum(distilled[-5:]) < 0.8 * sum(distilled[:5]), distilled
    evaluations = [now.evaluation for now in seen if now.evaluation]
    assert trained.best.rank == min(evaluation.rank for evaluation in evaluations)
    assert trained.best.rank < evaluations[0].rank


def test_a_network_with_weight_norm_is_trained_as_the_same_network_without() -> None:
    data = Inputs({"wave": rand(40, 1, 32)})
    normed, plain = (simple(kind, 1, 32) for kind in (normed_sound, programs.sound))
    results = [train(network, QUICK, data=data) for network in (normed, plain)]
    assert results[0].representation.layers == results[1].representation.layers
    assert results[0].best.rank == pytest.approx(results[1].best.rank, rel=1e-3)
    reports = [report_of(result, network) for result, network in zip(results, (normed, plain), strict=True)]
    errors = [report["relative_error"]["overall"] for report in reports]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    assert reports[0]["bytes"]["represented"] == reports[1]["bytes"]["represented"]
    # The magnitudes of nine filters.
    assert reports[0]["bytes"]["original"] == reports[1]["bytes"]["original"] + 4 * 9


def report_of(trained: Trained, network: Network) -> dict[str, Any]:
    content, nbytes = written(trained.representation, dict(network.state_dict))
    return make_report(trained, opened(content), nbytes, network.state_dict)


def test_the_report_of_values_has_their_error_and_not_their_classes() -> None:
    data = Inputs({"noisy": rand(40, 1, 8, 8)}, rand(40, 1, 8, 8, seed=1))
    report = report_of(train(denoiser(), QUICK, data=data), denoiser())
    assert report["distilled"]
    assert report["images"] == 4
    assert (report["agreement"], report["divergence"]) == (None, None)
    assert report["accuracy"] == {"original": None, "reconstructed": None}
    [output] = report["outputs"]
    assert output["objective"] == "values"
    assert 0 < output["relative_error"] < 1
    assert output["psnr"] > 0
    assert output["quality"]["original"]["mse"] == pytest.approx(2, rel=0.3), "the targets have nothing to do with the inputs"
    assert output["quality"]["reconstructed"]["mse"] > 0
    assert report["best"]["outputs"][0]["relative_error"] == pytest.approx(output["relative_error"], rel=0.02)


def test_the_report_of_dense_classes_counts_pixels() -> None:
    labels = torch.randint(0, 4, (40, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels[:, :4] = 255
    data = Inputs({"photo": rand(40, 3, 8, 8)}, labels)
    report = report_of(train(segmenter(), QUICK, data=data), segmenter())
    [output] = report["outputs"]
    assert output["objective"] == "classes", "the labels number its classes"
    assert report["accuracy"] == output["accuracy"]
    assert output["accuracy"]["original"] == pytest.approx(0.25, abs=0.1)
    # 4 images of 8 x 8 pixels, of which half have no label.
    assert output["accuracy"]["original"] * 128 == pytest.approx(round(output["accuracy"]["original"] * 128))
    assert output["agreement"] * 256 == pytest.approx(round(output["agreement"] * 256))
    assert 0 < report["divergence"] < 1
    assert output["psnr"] is None


def test_of_several_outputs_each_has_its_figures() -> None:
    trained = train(two_heads(), QUICK, data=images())
    classes, boxes = report_of(trained, two_heads())["outputs"]
    assert (classes["objective"], boxes["objective"]) == ("values", "values"), (
        "the labels are of ten classes, the output of five"
    )
    labelled = replace(images(), labels_N=torch.arange(40) % 5)
    trained = train(two_heads(), QUICK, data=labelled)
    classes, boxes = report_of(trained, two_heads())["outputs"]
    assert (classes["objective"], boxes["objective"]) == ("classes", "values")
    assert boxes["accuracy"]["original"] is None
    assert boxes["psnr"] is None, "four numbers are no picture"
    assert trained.best.rank == pytest.approx(classes["divergence"] + boxes["relative_error"], rel=0.05)


def test_an_output_that_is_ignored_changes_nothing() -> None:
    names = [port.name for port in two_heads().program.outputs]  # type: ignore[union-attr]  # it is a program
    request = QUICK.with_values({"objective": {names[1]: "ignore"}})
    trained = train(two_heads(), request, data=images())
    assert trained.best.comparison is not None
    assert [output.name for output in trained.best.comparison.outputs] == names[:1]


def test_a_classifier_can_be_distilled_by_its_logits() -> None:
    from tests.support.networks import resnet8

    network = Network(resnet8(), "cifar/resnet8")
    trained = train(network, QUICK.with_values({"objective": "values", "steps": 20}), data=images())
    comparison = trained.best.comparison
    assert comparison is not None
    assert comparison.divergence is None
    assert comparison.accuracy is not None, "the labels number its classes, whatever the loss is"
    assert comparison.rank == comparison.outputs[0].relative_error


@pytest.mark.parametrize("at", [3, 8, 12])
@pytest.mark.parametrize("case", ["denoiser", "two inputs", "matched noise"])
def test_a_training_goes_on_from_a_snapshot_bit_for_bit(case: str, at: int, tmp_path: Path) -> None:
    make, data, request = CASES[case]
    network, file = make(), tmp_path / "snapshot.safetensors"
    request = short(request).with_values({"steps": 12, "reconstruction_steps": 6, "bits": 4, "compression_steps": 3})
    if case == "denoiser":
        request = request.with_values({"feature_map_weight": 0.1})

    def save(progress: Progress) -> None:
        if progress.step == at:
            progress.snapshot().write(file)

    with patch("nern.training.loop.MIN_EVALUATION_STEPS", 2):
        whole = train(network, request, data=data, on_progress=save)
        resumed = train(network, request, data=data, snapshot=Snapshot.read(file))
    assert (resumed.best, resumed.last) == (whole.best, whole.last)
    for name, tensor in whole.representation.predictor.state_dict().items():
        assert torch.equal(resumed.representation.predictor.state_dict()[name], tensor)


@pytest.mark.parametrize(
    "other",
    [
        Inputs({"noisy": rand(40, 1, 8, 8, seed=9)}, rand(40, 1, 8, 8, seed=1)),
        Inputs({"noisy": rand(40, 1, 8, 8)}, rand(40, 1, 8, 8, seed=9)),
        Inputs({"noisy": rand(40, 1, 8, 8)}),
    ],
    ids=["inputs", "targets", "no targets"],
)
def test_a_snapshot_with_other_inputs_is_refused(other: Inputs) -> None:
    taken: list[Snapshot] = []
    request = DecoupledRequest(steps=1, hidden=8)
    data = Inputs({"noisy": rand(40, 1, 8, 8)}, rand(40, 1, 8, 8, seed=1))
    train(denoiser(), request, data=data, on_progress=lambda now: taken.append(now.snapshot()))
    with pytest.raises(ValueError, match="another training"):
        train(denoiser(), request, data=other, snapshot=taken[0])
    smaller = {name: node for name, node in denoiser().program.__dict__.items() if name != "nodes"}
    nodes = (*denoiser().program.nodes[:-1], replace(denoiser().program.nodes[-1], place="elsewhere"))  # type: ignore[union-attr]
    changed = replace(denoiser(), program=type(denoiser().program)(**smaller, nodes=nodes))  # type: ignore[misc]
    with pytest.raises(ValueError, match="another training"):
        train(changed, request, data=data, snapshot=taken[0])


def test_the_accuracy_of_a_search_needs_an_output_that_the_labels_number() -> None:
    request = DecoupledRequest(steps=2, target=AccuracyTarget(drop=1.0))
    labelled = replace(images(channels=1), labels_N=torch.arange(40) % 2)
    with pytest.raises(UnusableImages, match="number the classes of an output") as refused:
        train(denoiser(), request, data=labelled)
    assert refused.value.pointer == "/target"
    classes = Inputs({"photo": rand(40, 3, 8, 8)}, torch.randint(4, (40, 8, 8)))
    assert train(segmenter(), request.with_values({"image_batch": 4}), data=classes).search is not None


def test_targets_that_no_output_has_the_shape_of_are_refused() -> None:
    with pytest.raises(UnusableImages, match=r"labels have the shape \[1, 9, 9\] for each input, which is that of no output"):
        train(denoiser(), QUICK, data=Inputs({"noisy": rand(40, 1, 8, 8)}, rand(40, 1, 9, 9)))


def test_images_are_inputs_of_a_program_too() -> None:
    made_images: Images = images(channels=1)
    trained = train(denoiser(), QUICK.with_values({"steps": 20}), data=made_images)
    assert trained.distilled
