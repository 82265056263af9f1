import copy
import math
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from nern import training
from nern.architectures import build
from nern.errors import TrainingDiverged
from nern.evaluation import Evaluator, HeldOutSet
from nern.facts import ImageFacts, NetworkFacts, NoiseFacts
from nern.images import Subset
from nern.network import Network
from nern.plan import Plan
from nern.planning import MAX_HELD_OUT_IMAGES, make_plan
from nern.report import make_report
from nern.request import DecoupledRequest, PaperRequest, RegularisedRequest, TrainingRequest
from nern.request.phases import Cosine, PhasePlan
from nern.training import Progress, train
from nern.training.phases import KINDS
from nern.training.selection import Evaluation
from nern.training.targets import Targets, relative_error
from nern.training.teacher import split
from tests.support.networks import images, odd, resnet8
from tests.support.representations import opened, untrained, written


@pytest.mark.parametrize("config", [DecoupledRequest(steps=120, ratio=0.2), PaperRequest(steps=60, hidden=24, image_batch=8)])
def test_training_reconstructs_and_distils(config: DecoupledRequest | PaperRequest) -> None:
    seen: list[Progress] = []
    trained = train(Network(resnet8(), "cifar/resnet8"), config, data=images(), on_progress=seen.append)
    assert [progress.step for progress in seen] == list(range(1, config.steps + 1))
    evaluations = [progress.evaluation for progress in seen if progress.evaluation]
    assert trained.last.relative_error < evaluations[0].relative_error
    assert trained.best.comparison is not None
    assert trained.best.rank == min(evaluation.rank for evaluation in evaluations)
    assert seen[-1].evaluation == trained.last
    assert seen[-1].seconds_left == 0


@pytest.mark.parametrize("steps", [2, 120])
def test_the_better_the_fit_the_smaller_the_steps_of_distillation(steps: int) -> None:
    config = DecoupledRequest(
        layers=["layer1.0.conv1.weight"], hidden=64, steps=steps + 1, reconstruction_steps=steps, image_batch=4
    )
    seen: list[Evaluation] = []
    rates: list[float] = []

    def watch(now: Progress) -> None:
        seen.extend([now.evaluation] if now.evaluation else [])
        rates.append(now.snapshot().optimizers[0]["param_groups"][0]["lr"])

    train(Network(resnet8(), "cifar/resnet8"), config, data=images(8), on_progress=watch)
    error = seen[-2].relative_error
    assert (error < 0.3) == (steps == 120)
    assert rates[-1] == pytest.approx(config.distillation_learning_rate * min(1, error / 0.3) ** 2, rel=0.05)


@pytest.mark.parametrize(
    ("config", "distilled"),
    [
        (DecoupledRequest(steps=3, reconstruction_steps=2, hidden=8, image_batch=4), True),
        (DecoupledRequest(steps=3, reconstruction_steps=3, hidden=8), False),
        (PaperRequest(steps=2, reconstruction_steps=2, hidden=8), False),
        (PaperRequest(steps=2, feature_map_weight=0.0, logit_weight=0.0, hidden=8), False),
    ],
)
def test_a_report_says_whether_anything_was_distilled(config: TrainingRequest, distilled: bool) -> None:
    state_dict = resnet8()
    trained = train(Network(state_dict, "cifar/resnet8"), config, data=images())
    content, nbytes = written(trained.representation, state_dict)
    assert make_report(trained, opened(content), nbytes, state_dict)["distilled"] == distilled


def test_the_recipes_differ_in_when_they_distil() -> None:
    phases: dict[str, list[str]] = {}
    configs: list[TrainingRequest] = [DecoupledRequest(steps=12, hidden=8), PaperRequest(steps=6, hidden=8, image_batch=4)]
    for config in configs:
        seen: list[Progress] = []
        train(Network(resnet8(), "cifar/resnet8"), config, data=images(), on_progress=seen.append)
        phases[config.recipe] = [progress.phase for progress in seen]
    assert phases["decoupled"] == ["reconstruction"] * 10 + ["distillation"] * 2
    assert phases["paper"] == ["distillation"] * 6


def test_a_rounded_predictor_is_fitted_and_distilled_in_the_end() -> None:
    seen: list[Progress] = []
    config = DecoupledRequest(steps=12, hidden=8, bits=4, image_batch=4, compression_steps=4)
    trained = train(Network(resnet8(), "cifar/resnet8"), config, data=images(), on_progress=seen.append)
    assert [now.phase for now in seen] == ["reconstruction"] * 7 + ["distillation"] + ["compression"] * 4
    assert [now.evaluation.compressed for now in seen if now.evaluation] == [False, False, True, True]
    assert list(seen[7].losses) == ["distillation"]
    assert [list(now.losses) for now in seen[8:]] == [["reconstruction"]] * 2 + [["distillation"]] * 2
    assert trained.best.compressed


def test_the_published_recipe_depends_on_the_network() -> None:
    def resolved(architecture: str, **given: Any) -> PaperRequest:
        request = PaperRequest(**given)
        return request.with_values(request.settled(architecture=architecture, has_teacher=True))

    assert resolved("cifar/resnet20").logit_weight == 1e-4
    large = resolved("torchvision/resnet18", image_batch=64)
    assert (large.steps, large.reconstruction_steps, large.kernel_batch, large.image_batch) == (160_000, 20_000, 65_536, 64)
    assert resolved("cifar/resnet56").reconstruction_steps == 10_000
    assert resolved("torchvision/resnet18", reconstruction_steps=100_000).steps == 160_000
    with pytest.raises(ValueError, match="must not exceed"):
        resolved("cifar/resnet20", reconstruction_steps=100_000)
    short = resolved("cifar/resnet56", steps=50)
    assert (short.steps, short.reconstruction_steps, short.logit_weight) == (50, 0, 1e-5)
    assert resolved("cifar/resnet20", **large.model_dump(mode="json")) == large


def test_without_architecture_or_data_only_the_weights_are_reconstructed() -> None:
    for network, data in ((Network(resnet8()), images()), (Network(resnet8(), "cifar/resnet8"), None)):
        trained = train(network, DecoupledRequest(steps=6, hidden=8), data=data)
        assert trained.plan.request.reconstruction_steps == 6
        assert trained.last.comparison is None
    assert train(Network(odd()), DecoupledRequest(steps=6, hidden=8)).last.relative_error < 1.5


def test_the_best_evaluation_wins_over_the_last() -> None:
    state_dict = resnet8()
    ranks = iter([0.5, 0.1, 0.9])

    def judged(targets: Targets, evaluator: object, step: int) -> training.Evaluation:
        weights = copy.deepcopy(targets.representation.predictor.state_dict())
        snapshots.append(weights)
        return training.Evaluation(step, next(ranks), None)

    snapshots: list[dict[str, Tensor]] = []
    with patch("nern.training.loop.evaluate", judged), patch("nern.training.loop.MIN_EVALUATION_STEPS", 1):
        trained = train(Network(state_dict), DecoupledRequest(steps=3, hidden=8, bits=32))
    assert (trained.best.rank, trained.last.rank) == (0.1, 0.9)
    for name, tensor in trained.representation.predictor.state_dict().items():
        assert torch.equal(tensor, snapshots[1][name])


def test_a_loss_that_is_not_finite_ends_the_training_with_its_step() -> None:
    weights = resnet8()
    weights["conv1.weight"] = weights["conv1.weight"] * 1e30
    with pytest.raises(TrainingDiverged, match=r"loss became (nan|inf) at step 1 of 2; .*conv1\.weight"):
        train(Network(weights, "cifar/resnet8"), PaperRequest(steps=2, hidden=8), data=images())


def test_the_layer_whose_smoothing_diverged_is_named() -> None:
    config = RegularisedRequest(steps=2, hidden=8, smoothing_steps=3, smoothing_learning_rate=1.0, smoothing_weight=1e6)
    with (
        patch("torch.optim.Adam.step", lambda optimizer: optimizer.param_groups[0]["params"][1].data.fill_(torch.nan)),
        pytest.raises(TrainingDiverged, match=r"became nan at step 2 of .*smoothed weights.*layer1\.0\.conv1\.weight"),
    ):
        train(Network(resnet8(), "cifar/resnet8"), config, data=images())


def test_what_float16_cannot_hold_is_rebuilt_as_its_largest_number() -> None:
    weights = {"a.weight": torch.randn(8, 8, 3, 3).half(), "b.weight": 1e6 * torch.randn(8, 8, 3, 3)}
    trained = train(Network(weights), DecoupledRequest(steps=30, hidden=8, layer_scaling=0.0))
    content, nbytes = written(trained.representation, weights)
    artefact = opened(content)
    assert all(tensor.isfinite().all() for tensor in artefact.state_dict().values())
    report = make_report(trained, artefact, nbytes, weights)
    assert report["relative_error"]["overall"] == pytest.approx(trained.best.relative_error, rel=1e-2)


def test_a_comparison_of_networks_can_be_ended() -> None:
    class Enough(Exception):
        pass

    def check() -> None:
        if begun:
            raise Enough

    begun = False
    evaluator = Evaluator(build("cifar/resnet8", resnet8()), HeldOutSet.of(images()), check)
    begun = True
    with pytest.raises(Enough):
        evaluator.compare({})


def test_errors_of_tiny_weights_are_measured() -> None:
    weights = [torch.full((2, 2, 3, 3), 1e-24)]
    assert relative_error([torch.zeros(2, 2, 3, 3)], weights) == pytest.approx(1.0)
    assert relative_error(weights, weights) == 0.0


def test_images_are_changed_only_if_that_is_asked_for() -> None:
    network = build("cifar/resnet8", resnet8())
    for augment in (True, False):
        source, _ = split(images(), DecoupledRequest(augment=augment), 4, network)
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

    trained = train(Network({"zero.weight": torch.zeros(8, 8, 3, 3)}), DecoupledRequest(steps=40, hidden=8), on_progress=watch)
    assert trained.best.relative_error == min(errors) < errors[0]


def test_the_callback_can_end_the_training() -> None:
    class Enough(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise Enough

    with pytest.raises(Enough):
        train(Network(resnet8()), DecoupledRequest(steps=10, hidden=8), on_progress=stop)


def test_a_dataset_may_be_smaller_than_a_batch() -> None:
    config = DecoupledRequest(steps=4, reconstruction_steps=2, hidden=8, image_batch=64)
    trained = train(Network(resnet8(), "cifar/resnet8"), config, data=images(3))
    assert trained.last.comparison is not None
    assert trained.last.comparison.images == 1


def test_every_kind_of_layer_can_be_trained() -> None:
    names = ["stem.weight", "line.weight", "up.weight", "volume.weight", "wide_point.weight", "head.weight"]
    trained = train(Network(odd()), DecoupledRequest(steps=60, hidden=32, layers=names))
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
        patch("nern.training.loop.evaluate", lambda targets, evaluator, step: training.Evaluation(step, next(ranks), None)),
        patch("nern.training.loop.MIN_EVALUATION_STEPS", 1),
    ):
        assert train(Network(resnet8()), DecoupledRequest(steps=3, hidden=8)).best.step == 2


def test_a_training_none_of_whose_evaluations_is_finite_has_diverged() -> None:
    with (
        patch("nern.training.loop.evaluate", lambda targets, evaluator, step: training.Evaluation(step, math.nan, None)),
        pytest.raises(TrainingDiverged, match="no evaluation of the rebuilt network gave finite numbers"),
    ):
        train(Network(resnet8()), DecoupledRequest(steps=1, hidden=8))


@pytest.mark.parametrize(("count", "fraction", "held_out"), [(40, 0.1, 4), (3, 0.1, 1), (9000, 0.5, MAX_HELD_OUT_IMAGES)])
def test_a_fraction_of_the_images_is_held_out_up_to_a_most(count: int, fraction: float, held_out: int) -> None:
    network = NetworkFacts(resnet8(), "cifar/resnet8")
    plan = make_plan(DecoupledRequest(held_out=fraction), network, ImageFacts(count, 3, 10))
    assert isinstance(plan, Plan)
    assert plan.held_out_images == held_out


def test_the_schedules_of_the_recipes() -> None:
    network, noise = NetworkFacts(resnet8(), "cifar/resnet8"), NoiseFacts("uniform")
    plan = make_plan(RegularisedRequest(bits=4, steps=3000), network, noise)
    assert isinstance(plan, Plan)
    assert [(phase.name, phase.steps, phase.learning_rate) for phase in plan.phases] == [
        ("smoothing", 300, Cosine(1e-3, 300, warm_up=6)),
        ("reconstruction", 2083, Cosine(0.1, 2083, warm_up=41)),
        ("distillation", 417, Cosine(2e-4, 417, warm_up=8)),
        ("compression", 250, Cosine(0.1, 250, warm_up=5)),
        ("compression", 250, Cosine(2e-4, 250, warm_up=5)),
    ]
    plan = make_plan(PaperRequest(steps=100, reconstruction_steps=40), network, noise)
    assert isinstance(plan, Plan)
    assert [(phase.name, phase.steps, phase.learning_rate) for phase in plan.phases] == [
        ("reconstruction", 40, Cosine(5e-3, 100, floor=1e-6)),
        ("distillation", 60, Cosine(5e-3, 100, floor=1e-6, first=40)),
    ]


def test_the_schedule_rises_and_falls() -> None:
    rate = Cosine(2.0, 100, warm_up=9, floor=0.5)
    assert rate(0) == pytest.approx(0.2)
    assert max(rate(step) for step in range(100)) == pytest.approx(2.0, rel=0.05)
    assert rate(99) == pytest.approx(0.5, abs=1e-2)
    assert all(math.isfinite(rate(step)) for step in range(100))
    later = replace(rate, first=40)
    assert [later(step) for step in range(60)] == [rate(step) for step in range(40, 100)]


def test_every_kind_of_phase_can_be_carried_out() -> None:
    def kinds(kind: type[PhasePlan]) -> set[type[PhasePlan]]:
        return {below for child in kind.__subclasses__() for below in {child, *kinds(child)}}

    assert set(KINDS) == kinds(PhasePlan)
