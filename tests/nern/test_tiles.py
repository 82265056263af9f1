import pytest
import torch

from nern.layers import Layer, find_layers, find_linear
from nern.request.options import SmallKernels
from nern.tiles import Tiles
from tests.support.networks import odd, resnet8

SMALL: list[SmallKernels] = ["tiled", "cropped"]


@pytest.mark.parametrize("small", SMALL)
def test_tiles_of_3x3_convolutions_are_kernels(small: SmallKernels) -> None:
    layers = find_layers(resnet8())
    tiles = Tiles(layers, small)
    assert tiles.heads == ((1, 3, 3),)
    expected = [
        (number, filter, channel)
        for number, layer in enumerate(layers)
        for filter in range(layer.filters)
        for channel in range(layer.channels)
    ]
    found = tiles.of(torch.arange(len(tiles)))
    assert list(zip(*(axis.tolist() for axis in found), strict=True)) == expected


@pytest.mark.parametrize(
    ("shape", "width", "per_filter"),
    [
        ((4, 64, 1, 1), 16, 4),
        ((4, 20, 1, 1), 16, 2),
        ((4, 6, 1, 1), 6, 1),
        ((4, 64), 16, 4),
        ((4, 9, 2, 2), 4, 3),
        ((4, 9, 3), 6, 2),
        ((4, 9, 1, 7), 3, 3),
        ((4, 9, 3, 3), 1, 9),
        ((4, 1, 1, 3), 1, 1),
        ((4, 9, 2, 3, 3), 1, 9),
        ((4, 9, 64), 1, 9),
        ((4, 1, 80), 16, 5),
        ((4, 2, 251), 16, 32),
        ((4, 1, 1024), 16, 64),
        ((4, 3, 65, 2), 16, 25),
    ],
)
def test_kernels_of_few_weights_are_predicted_several_channels_at_a_time(
    shape: tuple[int, ...], width: int, per_filter: int
) -> None:
    tiles = Tiles([Layer("a.weight", shape, torch.float32)], "tiled")
    assert (tiles.width, tiles.per_filter, len(tiles)) == ((width,), (per_filter,), shape[0] * per_filter)


@pytest.mark.parametrize("small", SMALL)
def test_cutting_and_joining_gives_the_weight_back(small: SmallKernels) -> None:
    state_dict = odd() | {"long.weight": torch.randn(3, 2, 80), "kernel:0": torch.randn(3, 3, 12, 16)}
    layers = find_layers(state_dict) + find_linear(state_dict)
    tiles = Tiles(layers, small)
    for number, layer in enumerate(layers):
        weight = state_dict[layer.name]
        cut = tiles.cut(number, weight)
        assert len(cut) == tiles.count(number)
        assert torch.equal(tiles.join(number, cut).reshape(weight.shape), weight)
        inside = tiles.inside(number, torch.arange(len(cut)))
        assert (cut.numel() if inside is None else cut[inside].numel()) == weight.numel()


def test_cropped_kernels_are_the_centre_of_the_largest() -> None:
    shapes = [(1, 1, 5, 5), (1, 1, 3, 3), (1, 1, 1, 3), (1, 1, 1, 1), (1, 1, 2, 2), (1, 1, 3)]
    tiles = Tiles([Layer(str(shape), shape, torch.float32) for shape in shapes], "cropped")
    assert tiles.heads == ((1, 5, 5),)
    predicted = torch.arange(25.0).view(1, 1, 5, 5)
    rows_and_columns = [(0, 5, 0, 5), (1, 4, 1, 4), (2, 3, 1, 4), (2, 3, 2, 3), (1, 3, 1, 3), (2, 3, 1, 4)]
    for number, (shape, (top, bottom, left, right)) in enumerate(zip(shapes, rows_and_columns, strict=True)):
        assert torch.equal(tiles.crop(number, predicted), predicted[:, :, top:bottom, left:right].reshape(shape))


@pytest.mark.parametrize("small", SMALL)
def test_long_kernels_need_no_large_head(small: SmallKernels) -> None:
    shapes = [(8, 1, 1024), (8, 8, 3), (4, 4, 100, 100)]
    tiles = Tiles([Layer(f"{number}.weight", shape, torch.float32) for number, shape in enumerate(shapes)], small)
    assert set(tiles.heads) == {(16, 1, 1), (6, 3) if small == "tiled" else (1, 3)}


def test_only_long_kernels_have_one_head() -> None:
    assert Tiles([Layer("a.weight", (2, 1, 80), torch.float32)], "cropped").heads == ((16, 1, 1),)


def test_channels_in_the_last_dimensions_need_no_large_head() -> None:
    named = Tiles([Layer("conv/kernel:0", (3, 3, 32, 64), torch.float32)], "tiled")
    assert (named.heads, named.per_filter) == (((16, 1, 1),), (3 * 32 * 64 // 16,))


def test_tiles_of_one_shape_share_a_head() -> None:
    shapes = [(4, 64, 1, 1), (8, 32), (4, 4, 3, 3), (16, 16, 1, 1), (2, 2, 3, 3), (4, 4, 1, 3)]
    tiles = Tiles([Layer(str(shape), shape, torch.float32) for shape in shapes], "tiled")
    assert tiles.heads == ((16, 1, 1), (1, 3, 3), (4, 1, 3))
    assert tiles.head == (0, 0, 1, 0, 1, 2)
