import copy
import math
from dataclasses import replace
from io import BytesIO
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import nern.images
import nern.representation
from nern import losses, training
from nern.architectures import build
from nern.errors import NotRepresentable, TrainingDiverged, UnknownArchitecture, UnusableImages
from nern.evaluation import HeldOut, Judge
from nern.images import Images, Noise, Subset
from nern.layers import StateDict, find_layers
from nern.report import make_report
from nern.training import (
    DecoupledConfig,
    PaperConfig,
    Progress,
    RegularisedConfig,
    gradients,
    maps,
    read_config,
    sampling,
    train,
)
from nern.training.config import AccuracyTarget, Config
from nern.training.gradients import LossWeights
from nern.training.selection import Evaluation
from nern.training.targets import Targets, relative_error
from nern.training.train import hold_out
from tests.support.networks import images, odd, resnet8
from tests.support.representations import opened, untrained, written

CPU = torch.device("cpu")


def grads(targets: Targets) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in targets.representation.predictor.parameters() if parameter.grad is not None]


def direct(targets: Targets, inputs: Tensor, weights: LossWeights) -> list[Tensor]:
    """The losses' gradient by automatic differentiation through everything at once."""
    representation = targets.representation
    index = torch.arange(len(representation.tiles))
    rendered = {
        representation.layers[layer].name: tiles.view(representation.layers[layer].shape)
        for layer, _, tiles in representation.render(index)
    }
    network = build("cifar/resnet8", resnet8())
    with maps.recorded(network) as theirs:
        teacher = network(inputs)
    with maps.recorded(network) as ours:
        student = functional_call(network, rendered, (inputs,))
    errors = [rendered[layer.name] - weight for layer, weight in zip(representation.layers, targets.weights, strict=True)]
    total = (
        weights.reconstruction * losses.reconstruction(errors, sum(layer.weights for layer in representation.layers))
        + weights.feature_maps * losses.feature_maps(theirs, ours)
        + weights.logits * losses.distillation(teacher, student, weights.eps)
    )
    return list(torch.autograd.grad(total, list(representation.predictor.parameters())))


@pytest.mark.parametrize(
    "weights",
    [
        LossWeights(logits=1.0),
        LossWeights(feature_maps=1.0),
        LossWeights(reconstruction=1.0, feature_maps=1e-2, logits=1e-1, eps=1e-4),
    ],
)
@pytest.mark.parametrize("chunk", [100, 16_384])
@pytest.mark.parametrize("kept", [0, gradients.KEPT], ids=["computed twice", "kept"])
@pytest.mark.parametrize("portion", [3 * 3 * 8 * 8, nern.images.PORTION], ids=["images in portions", "images at once"])
def test_the_two_stage_gradient_is_the_gradient(weights: LossWeights, chunk: int, kept: int, portion: int) -> None:
    state_dict = resnet8()
    targets = Targets(untrained(state_dict), state_dict, CPU)
    inputs = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = direct(targets, inputs, weights)
    with (
        patch.object(nern.representation, "CHUNK", chunk),
        patch.object(gradients, "KEPT", kept),
        patch.object(nern.images, "PORTION", portion),
    ):
        gradients.all_at_once(build("cifar/resnet8", state_dict), targets, inputs, None, weights)
    found = grads(targets)
    assert all(gradient.abs().max() > 0 for gradient in found)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6 + 1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize("state_dict", [resnet8(), odd()])
def test_a_batch_of_any_size_is_reconstructed_in_chunks(state_dict: StateDict) -> None:
    targets = Targets(untrained(state_dict), state_dict, CPU)
    everything, found = torch.arange(len(targets.representation.tiles)), []
    for chunk in (nern.representation.CHUNK, 50):
        targets.representation.predictor.zero_grad()
        with patch.object(nern.representation, "CHUNK", chunk):
            loss = gradients.reconstruct(targets, everything)["reconstruction"]
        found.append([torch.tensor(loss), *grads(targets)])
    for at_once, in_chunks in zip(*found, strict=True):
        torch.testing.assert_close(in_chunks, at_once, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("layers", ["all", ["unused.weight"]], ids=["beside another", "alone"])
def test_a_layer_that_the_outputs_do_not_depend_on_is_no_obstacle(layers: Any) -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x).mean((2, 3))  # type: ignore[no-any-return]

    network = Unused().requires_grad_(False)
    state_dict = network.state_dict()
    represented = state_dict if layers == "all" else {name: state_dict[name] for name in layers}
    targets, inputs = Targets(untrained(represented), state_dict, CPU), torch.randn(2, 3, 8, 8)
    gradients.all_at_once(network, targets, inputs, None, LossWeights(logits=1.0, feature_maps=1.0))
    assert all(gradient.isfinite().all() for gradient in grads(targets))
    weights = targets.loosen()
    gradients.smooth(network, targets, inputs, 1.0)
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights)


def test_a_batch_of_kernels_carries_its_share_of_the_gradient() -> None:
    state_dict = resnet8()
    targets = Targets(untrained(state_dict), state_dict, CPU)
    network, inputs, weights = build("cifar/resnet8", state_dict), torch.randn(2, 3, 8, 8), LossWeights(logits=1.0)
    count = len(targets.representation.tiles)
    shares = []
    for index in (torch.arange(0, count, 2), torch.arange(1, count, 2), None):
        targets.representation.predictor.zero_grad()
        gradients.all_at_once(network, targets, inputs, index, weights)
        shares.append(grads(targets))
    for even, odd_ones, whole in zip(*shares, strict=True):
        torch.testing.assert_close(even + odd_ones, whole, rtol=1e-3, atol=1e-6)


def test_the_feature_maps_of_a_residual_network_are_norms_and_sums_before_the_activation() -> None:
    network = build("cifar/resnet8", resnet8())
    with torch.no_grad(), maps.recorded(network) as found:
        network(torch.randn(2, 3, 8, 8))
    assert len(found) == 7 + 3
    assert all((map < 0).any() for map in found)


def test_the_feature_maps_of_a_network_without_norms_are_its_convolutions() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.ReLU(inplace=True))
    with torch.no_grad(), maps.recorded(network) as found:
        network(torch.randn(2, 3, 8, 8))
    assert [map.shape[1] for map in found] == [4, 5]
    assert all((map < 0).any() for map in found)


def test_kernel_batches_cover_all_before_any_comes_again() -> None:
    shuffled = sampling.Shuffled(10, 4, seed=0)
    batches = [shuffled.batch(step) for step in range(9)]
    for number in range(1, 10):
        times = torch.cat(batches[:number]).bincount(minlength=10)
        assert times.max() - times.min() <= 1
    assert {len(batch) for batch in batches} == {3, 4}
    assert not torch.equal(torch.cat(batches[:3]), torch.cat(batches[3:6]))


def test_kernels_are_drawn_by_magnitude_with_the_given_probability() -> None:
    weight = torch.ones(100, 1, 1)
    weight[0] = 1e6
    always = sampling.UniformOrByMagnitude([weight], 5, 1.0, seed=0)
    never = sampling.UniformOrByMagnitude([weight], 5, 0.0, seed=0)
    assert all(always.batch(step).tolist() == [0] * 5 for step in range(40))
    assert sum(0 in never.batch(step) for step in range(40)) < 10


def test_kernels_are_drawn_in_proportion_to_their_norms() -> None:
    weight = torch.tensor([1.0, 0.0, 3.0]).view(3, 1, 1)
    drawn = sampling.UniformOrByMagnitude([weight.repeat(1000, 1, 1)], 3000, 1.0, seed=0).batch(0) % 3
    assert len(drawn) == 3000
    assert drawn.bincount(minlength=3).tolist() == [pytest.approx(750, abs=100), 0, pytest.approx(2250, abs=100)]


@pytest.mark.parametrize("config", [DecoupledConfig(steps=120, ratio=0.2), PaperConfig(steps=60, hidden=24, image_batch=8)])
def test_training_reconstructs_and_distils(config: DecoupledConfig | PaperConfig) -> None:
    seen: list[Progress] = []
    trained = train(resnet8(), config, architecture="cifar/resnet8", data=images(), on_progress=seen.append)
    assert [progress.step for progress in seen] == list(range(1, config.steps + 1))
    evaluations = [progress.evaluation for progress in seen if progress.evaluation]
    assert trained.last.relative_error < evaluations[0].relative_error
    assert trained.best.comparison is not None
    assert trained.best.rank == min(evaluation.rank for evaluation in evaluations)
    assert seen[-1].evaluation == trained.last
    assert seen[-1].seconds_left == 0


@pytest.mark.parametrize("steps", [2, 120])
def test_the_better_the_fit_the_smaller_the_steps_of_distillation(steps: int) -> None:
    config = DecoupledConfig(
        layers=["layer1.0.conv1.weight"], hidden=64, steps=steps + 1, reconstruction_steps=steps, image_batch=4
    )
    seen: list[Evaluation] = []
    rates: list[float] = []

    def watch(now: Progress) -> None:
        seen.extend([now.evaluation] if now.evaluation else [])
        rates.append(now.snapshot()["optimizers"][0]["param_groups"][0]["lr"])

    train(resnet8(), config, architecture="cifar/resnet8", data=images(8), on_progress=watch)
    error = seen[-2].relative_error
    assert (error < 0.3) == (steps == 120)
    assert rates[-1] == pytest.approx(config.distillation_learning_rate * min(1, error / 0.3) ** 2, rel=0.05)


@pytest.mark.parametrize(
    ("config", "distilled"),
    [
        (DecoupledConfig(steps=3, reconstruction_steps=2, hidden=8, image_batch=4), True),
        (DecoupledConfig(steps=3, reconstruction_steps=3, hidden=8), False),
        (PaperConfig(steps=2, reconstruction_steps=2, hidden=8), False),
        (PaperConfig(steps=2, feature_map_weight=0.0, logit_weight=0.0, hidden=8), False),
    ],
)
def test_a_report_says_whether_anything_was_distilled(config: Config, distilled: bool) -> None:
    state_dict = resnet8()
    trained = train(state_dict, config, architecture="cifar/resnet8", data=images())
    content, sizes = written(trained.representation, state_dict)
    assert make_report(trained, opened(content), sizes, state_dict)["distilled"] == distilled


def test_a_loss_without_weight_is_not_computed() -> None:
    seen: list[Progress] = []
    config = PaperConfig(steps=2, hidden=8, logit_weight=0.0, feature_map_weight=0.0)
    train(resnet8(), config, architecture="cifar/resnet8", data=images(), on_progress=seen.append)
    assert [set(progress.losses) for progress in seen] == [{"reconstruction"}] * 2


def test_the_recipes_differ_in_when_they_distil() -> None:
    phases: dict[str, list[str]] = {"decoupled": [], "paper": []}
    for config in (DecoupledConfig(steps=12, hidden=8), PaperConfig(steps=6, hidden=8, image_batch=4)):
        train(
            resnet8(),
            config,
            architecture="cifar/resnet8",
            data=images(),
            on_progress=lambda progress, recipe=config.recipe: phases[recipe].append(progress.phase),
        )
    assert phases["decoupled"] == ["reconstruction"] * 10 + ["distillation"] * 2
    assert phases["paper"] == ["distillation"] * 6


def test_a_rounded_predictor_is_fitted_and_distilled_in_the_end() -> None:
    seen: list[Progress] = []
    config = DecoupledConfig(steps=12, hidden=8, bits=4, image_batch=4, compression_steps=4)
    trained = train(resnet8(), config, architecture="cifar/resnet8", data=images(), on_progress=seen.append)
    assert [now.phase for now in seen] == ["reconstruction"] * 7 + ["distillation"] + ["compression"] * 4
    assert [now.evaluation.compressed for now in seen if now.evaluation] == [False, False, True, True]
    assert list(seen[7].losses) == ["distillation"]
    assert [list(now.losses) for now in seen[8:]] == [["reconstruction"]] * 2 + [["distillation"]] * 2
    assert trained.best.compressed


def test_the_published_recipe_depends_on_the_network() -> None:
    layers = find_layers(resnet8())

    def resolved(architecture: str, **given: Any) -> PaperConfig:
        return PaperConfig(**given).resolve(layers, distil=True, architecture=architecture)

    assert resolved("cifar/resnet20").logit_weight == 1e-4
    large = resolved("torchvision/resnet18", image_batch=64)
    assert (large.steps, large.reconstruction_steps, large.kernel_batch, large.image_batch) == (160_000, 20_000, 65_536, 64)
    assert resolved("cifar/resnet56").reconstruction_steps == 10_000
    assert resolved("torchvision/resnet18", reconstruction_steps=100_000).steps == 160_000
    with pytest.raises(ValueError, match="must not exceed"):
        resolved("cifar/resnet20", reconstruction_steps=100_000)
    short = resolved("cifar/resnet56", steps=50)
    assert (short.steps, short.reconstruction_steps, short.logit_weight) == (50, 0, 1e-5)
    assert PaperConfig(**large.model_dump(mode="json")).resolve(layers, distil=True, architecture="cifar/resnet20") == large


@pytest.mark.parametrize("data", [images(), Noise("normal", (3, 8, 8))])
def test_a_seed_decides_everything(data: Images | Noise) -> None:
    def weights(seed: int) -> Tensor:
        config = DecoupledConfig(steps=12, hidden=8, seed=seed)
        trained = train(resnet8(), config, architecture="cifar/resnet8", data=data)
        return torch.cat([parameter.flatten() for parameter in trained.representation.predictor.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 10, "reconstruction_steps": 11},
        {"steps": 10, "reconstruction_steps": 10, "bits": 8},
        {"recipe": "paper", "steps": 10, "reconstruction_steps": 11},
        {"recipe": "regularised", "reconstruction_steps": 0},
    ],
)
def test_phases_must_fit_together(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="reconstruction_steps"):
        read_config(wrong)


def test_without_architecture_or_data_only_the_weights_are_reconstructed() -> None:
    for arguments in ({"data": images()}, {"architecture": "cifar/resnet8"}):
        trained = train(resnet8(), DecoupledConfig(steps=6, hidden=8), **arguments)
        assert trained.config.reconstruction_steps == 6
        assert trained.last.comparison is None
    assert train(odd(), DecoupledConfig(steps=6, hidden=8)).last.relative_error < 1.5


def test_the_best_evaluation_wins_over_the_last() -> None:
    state_dict = resnet8()
    ranks = iter([0.5, 0.1, 0.9])

    def judged(targets: Targets, judge: object, step: int) -> training.Evaluation:
        weights = copy.deepcopy(targets.representation.predictor.state_dict())
        snapshots.append(weights)
        return training.Evaluation(step, next(ranks), None)

    snapshots: list[dict[str, Tensor]] = []
    with patch("nern.training.train.evaluate", judged), patch("nern.training.loop.MIN_INTERVAL", 1):
        trained = train(state_dict, DecoupledConfig(steps=3, hidden=8, bits=32))
    assert (trained.best.rank, trained.last.rank) == (0.1, 0.9)
    for name, tensor in trained.representation.predictor.state_dict().items():
        assert torch.equal(tensor, snapshots[1][name])


def test_a_loss_that_is_not_finite_ends_the_training_with_its_step() -> None:
    weights = resnet8()
    weights["conv1.weight"] = weights["conv1.weight"] * 1e30
    with pytest.raises(TrainingDiverged, match=r"loss became (nan|inf) at step 1 of 2; .*conv1\.weight"):
        train(weights, PaperConfig(steps=2, hidden=8), architecture="cifar/resnet8", data=images())


def test_the_layer_whose_smoothing_diverged_is_named() -> None:
    config = RegularisedConfig(steps=2, hidden=8, smoothing_steps=3, smoothing_learning_rate=1.0, smoothing_weight=1e6)
    with (
        patch("torch.optim.Adam.step", lambda optimizer: optimizer.param_groups[0]["params"][1].data.fill_(torch.nan)),
        pytest.raises(TrainingDiverged, match=r"became nan at step 2 of .*smoothed weights.*layer1\.0\.conv1\.weight"),
    ):
        train(resnet8(), config, architecture="cifar/resnet8", data=images())


def test_images_that_do_not_fit_the_network_are_refused_before_training() -> None:
    with pytest.raises(UnusableImages, match="can't take these images"):
        train(resnet8(), DecoupledConfig(), architecture="cifar/resnet8", data=images(channels=1))
    with pytest.raises(UnusableImages, match="at least 2"):
        train(resnet8(), DecoupledConfig(), architecture="cifar/resnet8", data=images(1))


def test_labels_that_the_network_has_no_classes_for_are_refused() -> None:
    made = images()
    assert made.labels_N is not None
    wrong = replace(made, labels_N=made.labels_N + 5)
    with pytest.raises(UnusableImages, match="classes"):
        train(resnet8(), DecoupledConfig(), architecture="cifar/resnet8", data=wrong)


@pytest.mark.parametrize(
    "wrong",
    [torch.full((2, 2, 3, 3), torch.nan), torch.full((2, 2, 3, 3), 1e60, dtype=torch.float64)],
    ids=["no numbers", "too large for float32"],
)
def test_weights_that_are_not_finite_are_refused_by_name(wrong: Tensor) -> None:
    with pytest.raises(NotRepresentable, match=r"layer2\.0\.conv1\.weight"):
        train(resnet8() | {"layer2.0.conv1.weight": wrong}, DecoupledConfig(steps=1, hidden=8))


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (torch.zeros(2, dtype=torch.complex64), r"of torch\.complex64"),
        (torch.eye(2).to_sparse(), "not a dense tensor on the CPU"),
        (torch.empty(2, device="meta"), "not a dense tensor on the CPU"),
    ],
    ids=["complex", "sparse", "meta"],
)
def test_what_an_artefact_cannot_keep_is_refused_before_training(odd: Tensor, reason: str) -> None:
    with pytest.raises(NotRepresentable, match=f"'odd' is {reason}"):
        train(resnet8() | {"odd": odd}, DecoupledConfig(steps=1, hidden=8))


def test_what_float16_cannot_hold_is_rebuilt_as_its_largest_number() -> None:
    weights = {"a.weight": torch.randn(8, 8, 3, 3).half(), "b.weight": 1e6 * torch.randn(8, 8, 3, 3)}
    trained = train(weights, DecoupledConfig(steps=30, hidden=8, layer_scaling=0.0))
    content, sizes = written(trained.representation, weights)
    artefact = opened(content)
    assert all(tensor.isfinite().all() for tensor in artefact.state_dict().values())
    report = make_report(trained, artefact, sizes, weights)
    assert report["relative_error"]["overall"] == pytest.approx(trained.best.relative_error, rel=1e-2)


def test_a_comparison_of_networks_can_be_ended() -> None:
    class Enough(Exception):
        pass

    def check() -> None:
        if begun:
            raise Enough

    begun = False
    judge = Judge(build("cifar/resnet8", resnet8()), HeldOut.of(images()), check)
    begun = True
    with pytest.raises(Enough):
        judge.compare({})


def test_a_network_whose_outputs_are_no_numbers_is_refused_before_training() -> None:
    wrong = resnet8() | {"bn1.running_var": -torch.ones(16)}
    with pytest.raises(UnusableImages, match="no finite numbers"):
        train(wrong, DecoupledConfig(), architecture="cifar/resnet8", data=images())


def test_without_data_the_architecture_is_checked_all_the_same() -> None:
    with pytest.raises(UnknownArchitecture, match="is not a torchvision/resnet18"):
        train(resnet8(), DecoupledConfig(), architecture="torchvision/resnet18")


@pytest.mark.parametrize("recipe", ["other", ["decoupled"], 3])
def test_there_are_three_recipes(recipe: object) -> None:
    with pytest.raises(ValueError, match="there is no recipe"):
        read_config({"recipe": recipe})


def test_errors_of_tiny_weights_are_measured() -> None:
    weights = [torch.full((2, 2, 3, 3), 1e-24)]
    assert relative_error([torch.zeros(2, 2, 3, 3)], weights) == pytest.approx(1.0)
    assert relative_error(weights, weights) == 0.0


def test_frequencies_that_machines_disagree_on_are_refused() -> None:
    assert DecoupledConfig(base=1.25, levels=60).levels == 60
    with pytest.raises(ValueError, match="base to the power of levels"):
        DecoupledConfig(base=1.25, levels=128)


def test_images_are_changed_only_if_that_is_asked_for() -> None:
    network = build("cifar/resnet8", resnet8())
    for augment in (True, False):
        source, _ = hold_out(images(), DecoupledConfig(augment=augment), network)
        assert isinstance(source, Subset)
        assert source.augment == augment


def test_a_layer_of_zeros_does_not_disturb_the_others() -> None:
    weights = {"a.weight": 0.03 * torch.randn(8, 8, 3, 3), "zero.weight": torch.zeros(8, 8, 3, 3)}
    representation = untrained(weights)
    assert representation.scales[1] < 2 * representation.scales[0]


def test_of_weights_that_are_all_zero_the_best_rebuilt_ones_are_chosen() -> None:
    errors: list[float] = []

    def watch(now: Progress) -> None:
        errors.extend([now.evaluation.relative_error] if now.evaluation else [])

    trained = train({"zero.weight": torch.zeros(8, 8, 3, 3)}, DecoupledConfig(steps=40, hidden=8), on_progress=watch)
    assert trained.best.relative_error == min(errors) < errors[0]


def test_what_does_not_fit_the_network_is_refused() -> None:
    with pytest.raises(UnknownArchitecture):
        train(resnet8(), DecoupledConfig(), architecture="cifar/resnet20", data=images())
    with pytest.raises(NotRepresentable):
        train(resnet8(), DecoupledConfig(layers=["bn1.weight"]))


def test_the_callback_can_end_the_training() -> None:
    class Enough(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise Enough

    with pytest.raises(Enough):
        train(resnet8(), DecoupledConfig(steps=10, hidden=8), on_progress=stop)


@pytest.mark.parametrize(
    ("recipe", "data", "at"),
    [
        ("decoupled", images(), 5),
        ("decoupled", images(), 10),
        ("decoupled", images(), 12),
        ("decoupled", images(), 13),
        ("decoupled", images(), 14),
        ("decoupled", images(), 15),
        ("decoupled", Noise("matched", (3, 8, 8)), 1),
        ("decoupled", Noise("matched", (3, 8, 8)), 15),
        ("regularised", images(), 1),
        ("regularised", images(), 5),
        ("paper", images(), 5),
        ("paper", images(), 12),
    ],
)
def test_a_training_goes_on_from_a_snapshot_bit_for_bit(recipe: str, data: Images | Noise, at: int) -> None:
    given: dict[str, Any] = {"steps": 16, "reconstruction_steps": 10, "hidden": 8, "image_batch": 4, "kernel_batch": 3000}
    given |= {"synthesis_steps": 2, "synthesised_images": 1}
    given |= {"smoothing_steps": 3} if recipe == "regularised" else {}
    config = read_config({"recipe": recipe, **given} | ({} if recipe == "paper" else {"bits": 4, "compression_steps": 3}))
    saved = BytesIO()

    def save(progress: Progress) -> None:
        if progress.step == at:
            torch.save(progress.snapshot(), saved)

    arguments: dict[str, Any] = {"architecture": "cifar/resnet8", "data": data}
    with patch("nern.training.loop.MIN_INTERVAL", 2):
        whole = train(resnet8(), config, on_progress=save, **arguments)
        saved.seek(0)
        steps: list[int] = []
        snapshot = torch.load(saved, weights_only=True)
        train(resnet8(), config, snapshot=snapshot, **arguments)
        resumed = train(
            resnet8(), config, on_progress=lambda progress: steps.append(progress.step), snapshot=snapshot, **arguments
        )
    assert steps == list(range(at + 1, steps[-1] + 1))
    assert (resumed.best, resumed.last) == (whole.best, whole.last)
    for name, tensor in whole.representation.predictor.state_dict().items():
        assert torch.equal(resumed.representation.predictor.state_dict()[name], tensor)


OTHER_PIXELS = replace(images(), pixels_NHWC=255 - images().pixels_NHWC)
OTHER_LABELS = replace(images(), labels_N=None)


@pytest.mark.parametrize(
    ("network", "config", "data"),
    [
        (resnet8(), DecoupledConfig(steps=1, hidden=9), images()),
        (resnet8(seed=1), DecoupledConfig(steps=1, hidden=8), images()),
        (resnet8() | {"bn1.bias": torch.ones(16)}, DecoupledConfig(steps=1, hidden=8), images()),
        (resnet8(), DecoupledConfig(steps=1, hidden=8), OTHER_PIXELS),
        (resnet8(), DecoupledConfig(steps=1, hidden=8), OTHER_LABELS),
        (resnet8(), DecoupledConfig(steps=1, hidden=8), Noise("matched", (3, 8, 8))),
        (resnet8(), DecoupledConfig(steps=1, hidden=8), None),
        (resnet8(), DecoupledConfig(steps=1, target=AccuracyTarget(drop=1.0)), images()),
    ],
    ids=["width", "represented weights", "kept tensors", "images", "labels", "noise", "no data", "target"],
)
def test_a_snapshot_of_another_training_is_refused(
    network: StateDict, config: DecoupledConfig, data: Images | Noise | None
) -> None:
    snapshots = []

    def save(progress: Progress) -> None:
        snapshots.append(progress.snapshot())

    train(resnet8(), DecoupledConfig(steps=1, hidden=8), architecture="cifar/resnet8", data=images(), on_progress=save)
    with pytest.raises(ValueError, match="another training"):
        train(network, config, architecture="cifar/resnet8", data=data, snapshot=snapshots[0])


def test_a_dataset_may_be_smaller_than_a_batch() -> None:
    config = DecoupledConfig(steps=4, reconstruction_steps=2, hidden=8, image_batch=64)
    trained = train(resnet8(), config, architecture="cifar/resnet8", data=images(3))
    assert trained.last.comparison is not None
    assert trained.last.comparison.images == 1


def test_every_kind_of_layer_can_be_trained() -> None:
    names = ["stem.weight", "line.weight", "up.weight", "volume.weight", "wide_point.weight", "head.weight"]
    trained = train(odd(), DecoupledConfig(steps=60, hidden=32, layers=names))
    assert [layer.name for layer in trained.representation.layers] == [
        "stem.weight",
        "wide_point.weight",
        "up.weight",
        "line.weight",
        "volume.weight",
        "head.weight",
    ]
    assert trained.last.relative_error < 0.3


def test_an_evaluation_without_finite_numbers_is_never_the_best() -> None:
    ranks = iter([float("nan"), 0.5, float("inf")])
    with (
        patch("nern.training.train.evaluate", lambda targets, judge, step: training.Evaluation(step, next(ranks), None)),
        patch("nern.training.loop.MIN_INTERVAL", 1),
    ):
        assert train(resnet8(), DecoupledConfig(steps=3, hidden=8)).best.step == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("config", "data"),
    [
        (DecoupledConfig(steps=12, hidden=8), images()),
        (DecoupledConfig(steps=12, hidden=8, bits=8), images()),
        (DecoupledConfig(steps=12, hidden=8, synthesised_images=1, synthesis_steps=2), Noise("matched", (3, 8, 8))),
        (RegularisedConfig(steps=12, hidden=8, smoothing_steps=2), images()),
        (PaperConfig(steps=4, hidden=8, image_batch=4), images()),
    ],
)
def test_training_on_a_cuda_device(config: Config, data: Images | Noise) -> None:
    arguments: dict[str, Any] = {"architecture": "cifar/resnet8", "data": data, "device": torch.device("cuda")}
    saved: list[Any] = []

    def save(progress: Progress) -> None:
        if progress.step == progress.steps - 1:
            torch.save(progress.snapshot(), file := BytesIO())
            saved.append(torch.load(BytesIO(file.getvalue()), map_location="cpu", weights_only=True))

    trained = train(resnet8(), config, on_progress=save, **arguments)
    resumed = train(resnet8(), config, snapshot=saved[0], **arguments)
    assert resumed.last.rank == pytest.approx(trained.last.rank, rel=1e-2)
    assert trained.representation.device == CPU
    assert trained.judge is not None
    layers = trained.representation.layers
    rebuilt = dict(zip([layer.name for layer in layers], trained.representation.render_all(), strict=True))
    assert trained.judge.compare(rebuilt).divergence == pytest.approx(trained.best.rank, rel=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_kind_of_layer_can_be_trained_on_a_cuda_device() -> None:
    assert train(odd(), DecoupledConfig(steps=60, hidden=32), device=torch.device("cuda")).last.relative_error < 0.3


def test_the_schedule_rises_and_falls() -> None:
    from nern.training.recipes import cosine

    rate = cosine(2.0, 100, warm_up=9, floor=0.5)
    assert rate(0) == pytest.approx(0.2)
    assert max(rate(step) for step in range(100)) == pytest.approx(2.0, rel=0.05)
    assert rate(99) == pytest.approx(0.5, abs=1e-2)
    assert all(math.isfinite(rate(step)) for step in range(100))
