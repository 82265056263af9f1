import math
import os
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nern import packing, ranking
from nern.architectures.cifar import ResNet, Shortcut
from nern.layers import StateDict, find_layers
from nern.permutation import mean_consecutive_cosine, pack, permutations, permute, tile_path, unpack
from nern.request.options import PathKind, PermutationKind
from nern.tiles import Tiles
from tests.support.networks import smooth_kernels

KINDS = get_args(PermutationKind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kernel_gets_a_coordinate_of_its_own(kind: PermutationKind) -> None:
    position = permute(smooth_kernels(6, 5, 9), kind)
    assert sorted(position.tolist()) == list(range(30))


def test_an_in_filter_permutation_keeps_filters_together() -> None:
    position = permute(smooth_kernels(6, 5, 9), "in-filter").reshape(6, 5)
    assert all(len(set((row // 5).tolist())) == 1 for row in position)


def test_permutations_make_neighbours_similar() -> None:
    weight = smooth_kernels(16, 16, 9)
    cosine = {kind: mean_consecutive_cosine(weight, permute(weight, kind)) for kind in KINDS}
    assert cosine["cross-filter"] > cosine["in-filter"] > cosine["none"]
    assert cosine["cross-filter"] > 0.6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 9), (4, 1, 9), (1, 5, 9), (3, 4, 1)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_kernels_without_direction_are_no_obstacle(kind: PermutationKind, shape: tuple[int, ...], value: float) -> None:
    weight = torch.full(shape, value)
    assert sorted(permute(weight, kind).tolist()) == list(range(shape[0] * shape[1]))


def test_single_weights_are_sorted_by_value() -> None:
    weight = torch.tensor([3.0, -1.0, 2.0, 0.0]).view(2, 2, 1)
    assert permute(weight, "cross-filter").tolist() == [3, 0, 2, 1]


@pytest.mark.parametrize(
    ("kind", "filters", "channels", "fixed"),
    [
        ("cross-filter", 16, 16, 256 * 8),
        ("cross-filter", 16, 3, 48 * 6),
        ("cross-filter", 23, 43, 23 * 43 * 10),
        ("in-filter", 6, 5, 6 * 3 + 30 * 3),
        ("in-filter", 5, 40, 5 * 3 + 200 * 6),
        ("none", 9, 9, 0),
    ],
)
def test_a_permutation_takes_fewer_bits_than_its_indices(
    kind: PermutationKind, filters: int, channels: int, fixed: int
) -> None:
    position = permute(smooth_kernels(filters, channels, 9), kind)
    packed = pack(position, filters, channels, kind)
    assert 8 * packed.numel() <= 0.9 * fixed
    assert torch.equal(unpack(packed, filters, channels, kind), position)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 48])
def test_permutations_come_back(n: int) -> None:
    permutations = shuffled(100, n)
    packed = ranking.encode(permutations)
    assert packed.numel() == ranking.nbytes(100, n)
    assert torch.equal(ranking.decode(packed, 100, n), permutations)


@pytest.mark.parametrize("n", [16, 1024, 4096, 65_536])
def test_a_permutation_takes_about_as_many_bits_as_it_takes_to_tell_it_from_others(n: int) -> None:
    assert 8 * ranking.encode(shuffled(1, n)).numel() < 1.1 * math.lgamma(n + 1) / math.log(2)


@pytest.mark.parametrize(("shortcut", "kilobytes"), [("A", 42.1), ("B", 45.5)])
def test_the_cross_filter_permutation_of_resnet20_takes_what_was_published(shortcut: Shortcut, kilobytes: float) -> None:
    tiles = Tiles(find_layers(ResNet(20, shortcut=shortcut).state_dict()), "cropped")
    counts = [tiles.count(number) for number in range(len(tiles.layers))]
    fixed = sum(packing.nbytes(count, (count - 1).bit_length()) for count in counts)
    assert fixed / 1000 == pytest.approx(kilobytes, abs=0.05)
    packed = [
        pack(torch.randperm(count), layer.filters, layer.channels, "cross-filter")
        for count, layer in zip(counts, tiles.layers, strict=True)
    ]
    assert sum(bits.numel() for bits in packed) < 0.9 * fixed


def test_bits_that_are_no_permutation_are_refused() -> None:
    with pytest.raises(ValueError, match="too few or too many"):
        unpack(torch.zeros(10, dtype=torch.uint8), 4, 5, "cross-filter")
    with pytest.raises(ValueError, match="no such order"):
        unpack(torch.full((2,), 255, dtype=torch.uint8), 2, 4, "cross-filter")
    with pytest.raises(ValueError, match="permutations of 8 numbers"):
        unpack(torch.zeros(1, dtype=torch.uint8), 2, 4, "cross-filter")


def shuffled(permutations: int, n: int) -> Tensor:
    chance = torch.Generator().manual_seed(n)
    return torch.stack([torch.randperm(n, generator=chance) for _ in range(permutations)])


def published(name: str) -> StateDict:
    """A published network, if the folder with them is set; see CONTRIBUTING.md."""
    path = Path(os.environ["NERN_TEST_DATA"]) / name
    loaded = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {key.removeprefix("module."): tensor for key, tensor in loaded.items()}


# Known values of networks that are not ours to ship.
if "NERN_TEST_DATA" in os.environ:

    @pytest.mark.parametrize(
        ("name", "path", "cosines"),
        [
            (
                "resnet20-12fca82f.th",
                [0, 22, 16, 17, 29, 28, 27, 41, 8, 30, 31, 32, 35, 34, 33, 5],
                {("none", "nearest"): 0.0145, ("cross-filter", "nearest"): 0.8854, ("cross-filter", "fragments"): 0.8909},
            ),
            (
                "resnet56-4bfd9763.th",
                [0, 23, 33, 17, 22, 1, 30, 29, 7, 6, 12, 37, 38, 40, 41, 10],
                {("none", "nearest"): 0.0142, ("cross-filter", "nearest"): 0.8896, ("cross-filter", "fragments"): 0.8956},
            ),
        ],
    )
    def test_paths_of_published_networks(
        name: str, path: list[int], cosines: dict[tuple[PermutationKind, PathKind], float]
    ) -> None:
        state_dict = published(name)
        tiles = Tiles(find_layers(state_dict), "cropped")
        weights = [state_dict[layer.name] for layer in tiles.layers]
        assert tile_path(weights[0].flatten(0, 1).flatten(1), "nearest").tolist()[:16] == path
        pairs = [tiles.count(number) - 1 for number in range(len(weights))]
        for (kind, how), expected in cosines.items():
            positions = permutations(tiles, state_dict, kind, how)
            found = [mean_consecutive_cosine(*pair) for pair in zip(weights, positions, strict=True)]
            mean = sum(count * cosine for count, cosine in zip(pairs, found, strict=True)) / sum(pairs)
            assert mean == pytest.approx(expected, abs=5e-4)

    def test_the_in_filter_path_of_a_published_network() -> None:
        state_dict = published("resnet20-12fca82f.th")
        tiles = Tiles(find_layers(state_dict), "cropped")
        channels, filters = [], []
        for layer, position in zip(tiles.layers, permutations(tiles, state_dict, "in-filter", "nearest"), strict=True):
            ordered = torch.empty(layer.kernels, 9)
            ordered[position] = normalize(state_dict[layer.name].flatten(0, 1).flatten(1), dim=1)
            grid = ordered.view(layer.filters, layer.channels, 9)
            channels.append((grid[:, 1:] * grid[:, :-1]).sum(2).flatten())
            filters.append((grid[1:] * grid[:-1]).sum(2).flatten())
        assert torch.cat(channels).mean().item() == pytest.approx(0.669, abs=1e-3)
        assert torch.cat(filters).mean().item() == pytest.approx(0.237, abs=1e-3)
