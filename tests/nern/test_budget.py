import dataclasses
from io import BytesIO
from typing import Any
from unittest.mock import patch

import pytest
import torch

from nern.errors import TrainingDiverged, UnusableImages
from nern.evaluation import Comparison
from nern.report import make_report
from nern.training import DecoupledConfig, Progress, train
from nern.training.budget import RATIOS, _Watch, drop_of
from nern.training.config import AccuracyTarget
from nern.training.gradients import reconstruct
from nern.training.trained import Size, Trained
from tests.support.networks import images, resnet8
from tests.support.representations import opened, written

ARGUMENTS: dict[str, Any] = {"architecture": "cifar/resnet8", "data": images()}


def within(drop: float, **more: Any) -> DecoupledConfig:
    return DecoupledConfig(target=AccuracyTarget(drop=drop), steps=4, reconstruction_steps=3, image_batch=4, **more)


def losing(drops: list[float]) -> Any:
    """Pretends that attempts of these sizes lost so much, in the order of RATIOS."""

    def drop_of(trained: Trained) -> float:
        weights = sum(layer.weights for layer in trained.representation.layers)
        parameters = trained.representation.predictor.config.parameters(trained.representation.tiles)
        return drops[min(range(len(RATIOS)), key=lambda n: abs(RATIOS[n] - parameters / weights))]

    return patch("nern.training.budget.drop_of", drop_of)


def test_ten_of_two_thousand_images_are_half_a_point() -> None:
    trained = train(resnet8(), DecoupledConfig(steps=2, hidden=8, image_batch=4), **ARGUMENTS)
    comparison = Comparison(2000, agreement=1.0, divergence=0.0, original_accuracy=1995 / 2000, accuracy=1985 / 2000)
    best = dataclasses.replace(trained.best, comparison=comparison)
    assert drop_of(dataclasses.replace(trained, best=best)) == 0.5


@pytest.mark.parametrize("smallest", range(len(RATIOS)))
def test_the_smallest_size_that_meets_the_target_is_found_in_three_trainings(smallest: int) -> None:
    drops = [9.0] * smallest + [0.4] * (len(RATIOS) - smallest)
    seen: list[Progress] = []
    with losing(drops):
        trained = train(resnet8(), within(0.5), on_progress=seen.append, **ARGUMENTS)
    assert trained.search is not None
    assert trained.search.met
    assert len(trained.search.sizes) == 3
    found = {size.hidden: size.ratio for size in trained.search.sizes}[trained.representation.predictor.config.hidden]
    assert found == RATIOS[smallest]
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert {progress.steps for progress in seen} == {12}


def test_trainings_to_come_are_expected_to_take_as_long_as_this_one() -> None:
    seen: list[Progress] = []
    now = Progress("distillation", 1, 4, {}, None, steps_per_second=0.1, seconds_left=30)
    with patch("time.monotonic", side_effect=[100, 110]):
        _Watch(seen.append, within(0.5), [], None, None)(now)
    assert seen[0].seconds_left == 30 + 2 * (10 + 30)


def test_a_target_that_can_not_be_met_is_reported_with_what_was_reached() -> None:
    state_dict = resnet8()
    with losing([9.0] * len(RATIOS)):
        trained = train(state_dict, within(0.5), **ARGUMENTS)
    assert trained.search is not None
    assert not trained.search.met
    assert trained.search.sizes[-1].ratio == RATIOS[-1]
    content, sizes = written(trained.representation, state_dict)
    report = make_report(trained, opened(content), sizes, state_dict)
    assert report["target"]["met"] is False
    assert [size["drop"] for size in report["target"]["sizes"]] == [9.0, 9.0, 9.0]


def diverging(*ratios: float) -> Any:
    """Pretends that trainings of these sizes diverge."""

    def sized(config: DecoupledConfig, ratio: float) -> DecoupledConfig:
        if ratio in ratios:
            raise TrainingDiverged("too wide")
        return config.model_copy(update={"ratio": ratio, "target": None})

    return patch("nern.training.budget._sized", sized)


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
        trained = train(resnet8(), within(0.5), **ARGUMENTS)
    assert trained.search is not None
    assert trained.search.met == met
    assert [size.drop for size in trained.search.sizes if size.ratio == diverges] == [None]
    found = {size.hidden: size.ratio for size in trained.search.sizes}[trained.representation.predictor.config.hidden]
    assert found == chosen


def test_a_search_ends_if_every_size_diverges() -> None:
    with diverging(*RATIOS), pytest.raises(TrainingDiverged):
        train(resnet8(), within(0.5), **ARGUMENTS)


def test_a_search_does_not_go_on_with_the_snapshot_of_another_target() -> None:
    taken: list[dict[str, Any]] = []
    train(resnet8(), within(0.5), on_progress=lambda progress: taken.append(progress.snapshot()), **ARGUMENTS)
    with pytest.raises(ValueError, match="another training"):
        train(resnet8(), within(2.0), snapshot=taken[5], **ARGUMENTS)


def test_the_drop_is_measured_on_held_out_images() -> None:
    trained = train(resnet8(), within(100.0), **ARGUMENTS)
    assert trained.search is not None
    comparison = trained.best.comparison
    assert comparison is not None
    assert comparison.accuracy is not None
    assert comparison.original_accuracy is not None
    assert trained.search.sizes[-1] == Size(
        RATIOS[0],
        trained.representation.predictor.config.hidden,
        100 * (comparison.original_accuracy - comparison.accuracy),
    )


# Three trainings of three steps of reconstruction each, and one more call to see how long a step takes; then one such call
# alone, when the chosen one is taken up again.
@pytest.mark.parametrize(("at", "calls"), [(2, 2 + 4 + 4 + 1), (4, 1 + 4 + 4 + 1), (7, 1 + 4 + 1), (12, 1 + 1)])
def test_a_search_goes_on_from_a_snapshot(at: int, calls: int) -> None:
    saved = BytesIO()

    def save(progress: Progress) -> None:
        if progress.step == at:
            torch.save(progress.snapshot(), saved)

    with losing([9.0, 9.0, 0.1, 0.1, 0.1, 0.1, 0.1]):
        whole = train(resnet8(), within(0.5), on_progress=save, **ARGUMENTS)
        saved.seek(0)
        with patch("nern.training.recipes.reconstruct", wraps=reconstruct) as step:
            resumed = train(resnet8(), within(0.5), snapshot=torch.load(saved, weights_only=True), **ARGUMENTS)
    assert step.call_count == calls
    assert resumed.search == whole.search
    for name, tensor in whole.representation.predictor.state_dict().items():
        assert torch.equal(resumed.representation.predictor.state_dict()[name], tensor)


def test_a_target_needs_labels() -> None:
    with pytest.raises(UnusableImages, match="labels"):
        train(resnet8(), within(0.5), architecture="cifar/resnet8", data=images(labelled=False))
    with pytest.raises(UnusableImages, match="labels"):
        train(resnet8(), within(0.5))


def test_a_target_excludes_a_size() -> None:
    for size in ({"hidden": 8}, {"ratio": 0.4}):
        with pytest.raises(ValueError, match="finds the size"):
            within(0.5, **size)
