import os
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from nern.layers import StateDict, find_layers
from nern.permutation import PermutationKind, greedy_path, kernel_path, mean_consecutive_cosine, pack, permute, unpack
from tests.support.networks import smooth_kernels

KINDS = get_args(PermutationKind)


def by_hand(vectors: Tensor) -> list[int]:
    """The greedy path with every comparison written out."""
    path, left = [0], list(range(1, len(vectors)))
    while left:
        similarity = [float(vectors[path[-1]] @ vectors[candidate]) for candidate in left]
        path.append(left.pop(similarity.index(max(similarity))))
    return path


def test_the_greedy_path_always_goes_to_the_most_similar_kernel_left() -> None:
    kernels = smooth_kernels(60, 9)
    unit = kernels / kernels.norm(dim=1, keepdim=True)
    assert kernel_path(kernels).tolist() == by_hand(unit)


def test_ties_go_to_the_lowest_number() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.6, 0.8]])
    assert greedy_path(vectors).tolist() == [0, 2, 3, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kernel_gets_a_coordinate_of_its_own(kind: PermutationKind) -> None:
    position = permute(smooth_kernels(6, 5, 3, 3), kind)
    assert sorted(position.tolist()) == list(range(30))


def test_an_in_filter_permutation_keeps_filters_together() -> None:
    position = permute(smooth_kernels(6, 5, 3, 3), "in-filter").reshape(6, 5)
    assert all(len(set((row // 5).tolist())) == 1 for row in position)


def test_permutations_make_neighbours_similar() -> None:
    weight = smooth_kernels(16, 16, 3, 3)
    cosine = {kind: mean_consecutive_cosine(weight, permute(weight, kind)) for kind in KINDS}
    assert cosine["cross-filter"] > cosine["in-filter"] > cosine["none"]
    assert cosine["cross-filter"] > 0.6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 3, 3), (4, 1, 3, 3), (1, 5, 3, 3), (3, 4, 1, 1)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_kernels_without_direction_are_no_obstacle(kind: PermutationKind, shape: tuple[int, ...], value: float) -> None:
    weight = torch.full(shape, value)
    assert sorted(permute(weight, kind).tolist()) == list(range(shape[0] * shape[1]))


def test_single_weights_are_sorted_by_value() -> None:
    weight = torch.tensor([3.0, -1.0, 2.0, 0.0]).view(2, 2, 1, 1)
    assert permute(weight, "cross-filter").tolist() == [3, 0, 2, 1]


@pytest.mark.parametrize(
    ("kind", "filters", "channels", "bits"),
    [
        ("cross-filter", 16, 16, 256 * 8),
        ("cross-filter", 16, 3, 48 * 6),
        ("in-filter", 6, 5, 6 * 3 + 30 * 3),
        ("none", 9, 9, 0),
    ],
)
def test_a_permutation_is_stored_at_the_fewest_whole_bits(
    kind: PermutationKind, filters: int, channels: int, bits: int
) -> None:
    position = permute(smooth_kernels(filters, channels, 3, 3), kind)
    packed = pack(position, filters, channels, kind)
    assert packed.numel() == -(-bits // 8)
    assert torch.equal(unpack(packed, filters, channels, kind), position)


def test_bits_that_are_no_permutation_are_refused() -> None:
    with pytest.raises(ValueError, match="not a permutation"):
        unpack(torch.zeros(4, dtype=torch.uint8), 2, 4, "cross-filter")
    with pytest.raises(ValueError, match="too few bits"):
        unpack(torch.zeros(1, dtype=torch.uint8), 2, 4, "cross-filter")


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
                {"none": 0.0145, "cross-filter": 0.8854},
            ),
            (
                "resnet56-4bfd9763.th",
                [0, 23, 33, 17, 22, 1, 30, 29, 7, 6, 12, 37, 38, 40, 41, 10],
                {"none": 0.0142, "cross-filter": 0.8896},
            ),
        ],
    )
    def test_paths_of_published_networks(name: str, path: list[int], cosines: dict[PermutationKind, float]) -> None:
        state_dict = published(name)
        layers = find_layers(state_dict)
        first = state_dict[layers[0].name]
        assert kernel_path(first.flatten(0, 1).flatten(1)).tolist()[:16] == path
        for kind, expected in cosines.items():
            weights = [state_dict[layer.name] for layer in layers]
            pairs = [weight.shape[0] * weight.shape[1] - 1 for weight in weights]
            found = [mean_consecutive_cosine(weight, permute(weight, kind)) for weight in weights]
            mean = sum(count * cosine for count, cosine in zip(pairs, found, strict=True)) / sum(pairs)
            assert mean == pytest.approx(expected, abs=5e-4)
