import pytest
import torch

from nern import losses
from nern.errors import UnusableImages
from nern.network import Network
from nern.request import RegularisedRequest
from nern.training import Progress, train
from nern.training.targets import Targets
from tests.support.networks import images, odd, resnet8
from tests.support.representations import untrained

CPU = torch.device("cpu")


def test_smoothness_sums_the_cosines_of_neighbours_along_both_axes() -> None:
    tiles = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 3.0], [-1.0, 0.0]]])
    # Along the tiles of a filter: 1 and 0; along the filters: 0 and -1.
    assert losses.smoothness(tiles).item() == pytest.approx(0.0)
    assert losses.smoothness(tiles[:1]).item() == pytest.approx(1.0)
    assert losses.smoothness(torch.zeros(3, 3, 2)).item() == 0.0


def test_tiles_of_zeros_have_no_direction_to_turn() -> None:
    tiles = torch.randn(3, 3, 9)
    tiles[1, 1] = 0
    tiles.requires_grad_()
    losses.smoothness(tiles).backward()
    assert tiles.grad is not None
    assert not tiles.grad[1, 1].any()
    assert tiles.grad[0, 0].any()


def test_tiles_are_seen_where_the_permutation_puts_them() -> None:
    state_dict = odd()
    representation = untrained(state_dict, permutation="cross-filter")
    grids = list(Targets(representation, state_dict, CPU).grids())
    for number, layer in enumerate(representation.layers):
        tiles = representation.tiles.cut(number, state_dict[layer.name]).flatten(1)
        flat = grids[number].flatten(0, 1)
        assert torch.equal(flat[representation.positions(number)], tiles)


def test_the_recipe_makes_neighbours_similar_and_the_outputs_stay() -> None:
    seen: list[Progress] = []
    config = RegularisedRequest(
        steps=12, hidden=8, smoothing_steps=30, smoothing_weight=1e-3, smoothing_learning_rate=1e-2, image_batch=8
    )
    trained = train(Network(resnet8(), "cifar/resnet8"), config, data=images(), on_progress=seen.append)
    assert [progress.phase for progress in seen] == ["smoothing"] * 30 + ["reconstruction"] * 10 + ["distillation"] * 2
    before, after = seen[0].losses, seen[29].losses
    assert after["smoothness"] > before["smoothness"] + 1000
    assert after["distillation"] < 0.5
    assert trained.steps == 42


def test_the_last_steps_are_small_where_the_smoothed_weights_are_rebuilt_well() -> None:
    rates: list[float] = []
    config = RegularisedRequest(
        layers=["layer1.0.conv1.weight"],
        steps=160,
        reconstruction_steps=130,
        compression_steps=20,
        bits=8,
        hidden=64,
        smoothing_steps=20,
        smoothing_weight=0.1,
        smoothing_learning_rate=0.1,
        image_batch=4,
    )

    def watch(progress: Progress) -> None:
        rates.append(progress.snapshot().optimizers[0]["param_groups"][0]["lr"])

    trained = train(Network(resnet8(), "cifar/resnet8"), config, data=images(), on_progress=watch)
    assert trained.best.relative_error > 0.3, "the smoothed weights are far from the original ones"
    assert 0 < max(rates[-10:]) < 0.3 * config.distillation_learning_rate


def test_there_has_to_be_a_step_that_fits_the_smoothed_weights() -> None:
    with pytest.raises(ValueError, match="reconstruction_steps"):
        RegularisedRequest(reconstruction_steps=0)


def test_without_images_there_is_nothing_to_fine_tune_on() -> None:
    with pytest.raises(UnusableImages, match="fine-tune"):
        train(Network(resnet8()), RegularisedRequest(steps=2, hidden=8))
