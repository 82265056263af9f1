import pytest
import torch

from nern import losses
from nern.errors import UnusableImages
from nern.training import Progress, RegularisedConfig, train
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
    config = RegularisedConfig(
        steps=12, hidden=8, smoothing_steps=30, smoothing_weight=1e-3, smoothing_learning_rate=1e-2, image_batch=8
    )
    trained = train(resnet8(), config, architecture="cifar/resnet8", data=images(), on_progress=seen.append)
    assert [progress.phase for progress in seen] == ["smoothing"] * 30 + ["reconstruction"] * 10 + ["distillation"] * 2
    before, after = seen[0].losses, seen[29].losses
    assert after["smoothness"] > before["smoothness"] + 1000
    assert after["distillation"] < 0.5
    assert trained.steps == 42


def test_without_images_there_is_nothing_to_fine_tune_on() -> None:
    with pytest.raises(UnusableImages, match="fine-tune"):
        train(resnet8(), RegularisedConfig(steps=2, hidden=8))
