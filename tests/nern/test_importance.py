import pytest
import torch

from nern.evaluation import Comparison
from nern.importance import FRACTIONS, PARTS, PRUNED_NETWORKS, SCORES, Part, Weights, curves, pruned, score
from nern.layers import find_layers
from nern.network import Network
from nern.report import make_report
from nern.request import DecoupledRequest
from nern.training import Progress, train
from tests.support.networks import images, resnet8
from tests.support.representations import opened, written

ORIGINAL = torch.tensor([[[1.0, -4.0], [2.0, 0.5]], [[8.0, 0.1], [0.2, 0.2]]])
REBUILT = torch.tensor([[[1.5, -4.0], [2.0, 0.0]], [[7.0, 0.1], [0.2, 0.1]]])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_badly_rebuilt_weights_are_unimportant() -> None:
    absolute = score(ORIGINAL, REBUILT, "absolute error", "weight", generator())
    relative = score(ORIGINAL, REBUILT, "relative error", "weight", generator())
    assert absolute.argmin() == 4
    assert relative.argmin() == 3
    assert (absolute.max().item(), relative.max().item()) == (0, 0)


def test_weights_of_zero_have_a_score() -> None:
    zero = torch.zeros(2, 2, 3, 3)
    for by in SCORES:
        assert score(zero, zero, by, "weight", generator()).isfinite().all()


@pytest.mark.parametrize(("part", "parts"), [("weight", 8), ("kernel", 4), ("filter", 2)])
def test_the_weights_of_a_part_share_their_mean_score(part: Part, parts: int) -> None:
    for by in ("random", "magnitude", "absolute error"):
        assert score(ORIGINAL, REBUILT, by, part, generator()).shape == ORIGINAL.shape
    assert len(score(ORIGINAL, REBUILT, "random", part, generator()).unique()) == parts
    magnitudes = score(ORIGINAL, REBUILT, "magnitude", part, generator())
    assert magnitudes.mean().item() == pytest.approx(ORIGINAL.abs().mean().item())


def test_chance_does_not_prefer_small_parts() -> None:
    small, large = torch.zeros(200, 1, 1, 1), torch.zeros(200, 50, 3, 3)
    scores = [score(weight, weight, "random", "filter", generator()) for weight in (small, large)]
    assert scores[1].std() == pytest.approx(scores[0].std().item(), rel=0.2)


def test_a_weight_of_zero_does_not_condemn_its_part() -> None:
    original = torch.ones(2, 4, 3, 3)
    original[0, 0, 0, 0] = 0.0
    rebuilt = original + 0.1 * torch.tensor([1.0, 2.0])[:, None, None, None]
    scores = score(original, rebuilt, "relative error", "filter", generator())
    assert scores[0].mean() > scores[1].mean()
    assert score(original, rebuilt, "relative error", "weight", generator()).argmin() == 0


def test_the_lowest_scores_go_first() -> None:
    scores = [score(ORIGINAL, REBUILT, "magnitude", "weight", generator())]
    assert torch.equal(pruned({"a": ORIGINAL}, scores, 0.0)["a"], ORIGINAL)
    half = pruned({"a": ORIGINAL}, scores, 0.5)["a"]
    assert half.count_nonzero() == 4
    assert half.abs().max() == 8


def test_pruning_compares_layers_with_each_other() -> None:
    weights = {"small": torch.full((4, 4), 0.1), "large": torch.full((4, 4), 9.0)}
    left = pruned(weights, [weight.abs() for weight in weights.values()], 0.5)
    assert (left["small"].count_nonzero().item(), left["large"].count_nonzero().item()) == (0, 16)


def test_curves_have_a_point_for_every_fraction() -> None:
    state_dict = resnet8()
    layers = find_layers(state_dict)
    rebuilt = {layer.name: state_dict[layer.name] + 0.1 * torch.randn(layer.shape) for layer in layers}
    steps: list[int] = []

    def kept(weights: Weights) -> Comparison:
        return Comparison(1, sum(float(w.count_nonzero()) for w in weights.values()) / 77_000, 0.0, None, None)

    found = curves(state_dict, rebuilt, layers, kept, 0, steps.append)
    assert steps == list(range(1, PRUNED_NETWORKS + 1))
    assert found["metric"] == "agreement"
    for part in PARTS:
        for by in SCORES:
            values = found["curves"][part][by]
            assert len(values) == len(FRACTIONS)
            assert values == sorted(values, reverse=True)


def test_a_job_can_ask_which_weights_matter() -> None:
    state_dict, seen = resnet8(), list[Progress]()
    config = DecoupledRequest(steps=3, hidden=8, importance=True)
    trained = train(Network(state_dict, "cifar/resnet8"), config, data=images(), on_progress=seen.append)
    content, nbytes = written(trained.representation, state_dict)
    report = make_report(trained, opened(content), nbytes, state_dict, seen.append)
    assert report["importance"]["metric"] == "accuracy"
    assert [progress.step for progress in seen] == list(range(1, 3 + PRUNED_NETWORKS + 1))
    assert {progress.steps for progress in seen} == {3 + PRUNED_NETWORKS}
    with pytest.raises(ValueError, match="there are no snapshots after the last step"):
        seen[-1].snapshot()


def test_without_a_teacher_there_is_no_importance() -> None:
    assert not train(Network(resnet8()), DecoupledRequest(steps=1, hidden=8, importance=True)).plan.request.importance
