import dataclasses
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from nern.errors import TrainingDiverged, UnusableImages
from nern.evaluation import Comparison
from nern.network import Network
from nern.plan import Plan
from nern.planning import SEARCHED_RATIOS
from nern.report import make_report
from nern.request import AccuracyTarget, DecoupledRequest
from nern.training import Progress, Snapshot, train
from nern.training.gradients import reconstruct
from nern.training.loop import Training
from nern.training.search import drop_of
from nern.training.subject import Subject
from nern.training.trained import Trained
from nern.training.trial import Trial
from tests.support.networks import images, resnet8
from tests.support.representations import opened, written

ARGUMENTS: dict[str, Any] = {"data": images()}


def within(drop: float, **more: Any) -> DecoupledRequest:
    return DecoupledRequest(target=AccuracyTarget(drop=drop), steps=4, reconstruction_steps=3, image_batch=4, **more)


def losing(drops: list[float]) -> Any:
    """Pretends that attempts of these sizes lost so much, in the order of SEARCHED_RATIOS."""

    def drop_of(trained: Trained) -> float:
        return drops[SEARCHED_RATIOS.index(ratio_of(trained.plan))]

    return patch("nern.training.search.drop_of", drop_of)


def ratio_of(plan: Plan) -> float:
    """Which of the searched ratios a plan has."""
    ratio = plan.predictor.parameters(plan.tiles()) / sum(layer.weights for layer in plan.layers)
    return min(SEARCHED_RATIOS, key=lambda searched: abs(searched - ratio))


def test_ten_of_two_thousand_images_are_half_a_point() -> None:
    trained = train(Network(resnet8(), "cifar/resnet8"), DecoupledRequest(steps=2, hidden=8, image_batch=4), **ARGUMENTS)
    comparison = Comparison(2000, agreement=1.0, divergence=0.0, original_accuracy=1995 / 2000, accuracy=1985 / 2000)
    best = dataclasses.replace(trained.best, comparison=comparison)
    assert drop_of(dataclasses.replace(trained, best=best)) == 0.5


@pytest.mark.parametrize("smallest", range(len(SEARCHED_RATIOS)))
def test_the_smallest_size_that_meets_the_target_is_found_in_three_trainings(smallest: int) -> None:
    drops = [9.0] * smallest + [0.4] * (len(SEARCHED_RATIOS) - smallest)
    seen: list[Progress] = []
    with losing(drops):
        trained = train(Network(resnet8(), "cifar/resnet8"), within(0.5), on_progress=seen.append, **ARGUMENTS)
    assert trained.search is not None
    assert trained.search.met
    assert len(trained.search.trials) == 3
    found = {size.hidden: size.ratio for size in trained.search.trials}[trained.representation.predictor.config.hidden]
    assert found == SEARCHED_RATIOS[smallest]
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert {progress.steps for progress in seen} == {12}


def test_trainings_to_come_are_expected_to_take_as_long_as_this_one() -> None:
    seen: list[Progress] = []
    with losing([9.0] * 7), patch("nern.training.progress.monotonic", side_effect=count(step=10.0)):
        train(Network(resnet8(), "cifar/resnet8"), within(0.5), on_progress=seen.append, **ARGUMENTS)
    # The clock is read when a trial is begun, when a phase is begun and after each step. So the first step takes 10 s, of 20 s
    # since the trial began, three are left of this trial, and two trials of four steps are to come.
    assert seen[0].seconds_left == 30 + 2 * (20 + 30)
    assert seen[4].seconds_left == 30 + (20 + 30)
    assert [seen[last].seconds_left for last in (7, 11)] == [60, 0]


def test_a_target_that_can_not_be_met_is_reported_with_what_was_reached() -> None:
    state_dict = resnet8()
    with losing([9.0] * len(SEARCHED_RATIOS)):
        trained = train(Network(state_dict, "cifar/resnet8"), within(0.5), **ARGUMENTS)
    assert trained.search is not None
    assert not trained.search.met
    assert trained.search.trials[-1].ratio == SEARCHED_RATIOS[-1]
    content, nbytes = written(trained.representation, state_dict)
    report = make_report(trained, opened(content), nbytes, state_dict)
    assert report["target"]["met"] is False
    assert [size["drop"] for size in report["target"]["sizes"]] == [9.0, 9.0, 9.0]


def diverging(*ratios: float) -> Any:
    """Pretends that trainings of these sizes diverge."""

    def training(subject: Subject, plan: Plan, **options: Any) -> Training:
        if ratio_of(plan) in ratios:
            raise TrainingDiverged("too wide")
        return Training(subject, plan, **options)

    return patch("nern.training.train.Training", training)


@pytest.mark.parametrize(
    ("diverges", "drops", "met", "chosen"),
    [
        (0.1, [0.4] * 7, True, 0.15),
        (0.9, [9.0] * 7, False, 0.6),
        (0.3, [9.0] * 5 + [0.4] * 2, True, 0.6),
    ],
)
def test_a_size_that_diverges_does_not_end_the_search(diverges: float, drops: list[float], met: bool, chosen: float) -> None:
    with losing(drops), diverging(diverges):
        trained = train(Network(resnet8(), "cifar/resnet8"), within(0.5), **ARGUMENTS)
    assert trained.search is not None
    assert trained.search.met == met
    assert [size.drop for size in trained.search.trials if size.ratio == diverges] == [None]
    found = {size.hidden: size.ratio for size in trained.search.trials}[trained.representation.predictor.config.hidden]
    assert found == chosen


def test_a_search_ends_if_every_size_diverges() -> None:
    with diverging(*SEARCHED_RATIOS), pytest.raises(TrainingDiverged):
        train(Network(resnet8(), "cifar/resnet8"), within(0.5), **ARGUMENTS)


def test_a_search_does_not_go_on_with_the_snapshot_of_another_target() -> None:
    taken: list[Snapshot] = []
    train(
        Network(resnet8(), "cifar/resnet8"),
        within(0.5),
        on_progress=lambda progress: taken.append(progress.snapshot().detached()),
        **ARGUMENTS,
    )
    with pytest.raises(ValueError, match="another training"):
        train(Network(resnet8(), "cifar/resnet8"), within(2.0), snapshot=taken[5], **ARGUMENTS)


def test_the_drop_is_measured_on_held_out_images() -> None:
    trained = train(Network(resnet8(), "cifar/resnet8"), within(100.0), **ARGUMENTS)
    assert trained.search is not None
    comparison = trained.best.comparison
    assert comparison is not None
    assert comparison.accuracy is not None
    assert comparison.original_accuracy is not None
    assert trained.search.trials[-1] == Trial(
        SEARCHED_RATIOS[0],
        trained.representation.predictor.config.hidden,
        100 * (comparison.original_accuracy - comparison.accuracy),
    )


# Three trials of three steps of reconstruction and one of distillation each.
@pytest.mark.parametrize(("at", "calls"), [(2, 1 + 3 + 3), (4, 3 + 3), (7, 3), (12, 0)])
def test_a_search_goes_on_from_a_snapshot(at: int, calls: int, tmp_path: Path) -> None:
    file = tmp_path / "snapshot.safetensors"

    def save(progress: Progress) -> None:
        if progress.step == at:
            progress.snapshot().write(file)

    with losing([9.0, 9.0, 0.1, 0.1, 0.1, 0.1, 0.1]):
        whole = train(Network(resnet8(), "cifar/resnet8"), within(0.5), on_progress=save, **ARGUMENTS)
        with patch("nern.training.phases.reconstruction.reconstruct", wraps=reconstruct) as step:
            resumed = train(Network(resnet8(), "cifar/resnet8"), within(0.5), snapshot=Snapshot.read(file), **ARGUMENTS)
    assert step.call_count == calls
    assert resumed.search == whole.search
    for name, tensor in whole.representation.predictor.state_dict().items():
        assert torch.equal(resumed.representation.predictor.state_dict()[name], tensor)


def test_a_target_needs_labels() -> None:
    with pytest.raises(UnusableImages, match="labels"):
        train(Network(resnet8(), "cifar/resnet8"), within(0.5), data=images(labelled=False))
    with pytest.raises(UnusableImages, match="labels"):
        train(Network(resnet8()), within(0.5))


def test_a_target_excludes_a_size() -> None:
    for size in ({"hidden": 8}, {"ratio": 0.4}):
        with pytest.raises(ValueError, match="finds the size"):
            within(0.5, **size)
