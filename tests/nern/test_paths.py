import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nern import paths
from nern.paths import fragment_path, nearest_path
from tests.support.networks import smooth_kernels


def directions(*shape: int) -> Tensor:
    return normalize(smooth_kernels(*shape), dim=1)


def smoothness(vectors: Tensor, path: Tensor) -> float:
    ordered = vectors[path]
    return (ordered[1:] * ordered[:-1]).sum(1).mean().item()


def by_hand(vectors: Tensor) -> list[int]:
    """The nearest-neighbour path with every comparison written out."""
    path, left = [0], list(range(1, len(vectors)))
    while left:
        similarity = [float(vectors[path[-1]] @ vectors[candidate]) for candidate in left]
        path.append(left.pop(similarity.index(max(similarity))))
    return path


def test_the_nearest_path_always_goes_to_the_most_similar_vector_left() -> None:
    vectors = directions(60, 9)
    assert nearest_path(vectors).tolist() == by_hand(vectors)


def test_ties_go_to_the_lowest_number() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.6, 0.8]])
    assert nearest_path(vectors).tolist() == [0, 2, 3, 1]


def test_fragments_join_the_most_similar_pairs_first() -> None:
    # 0 and 2 point the same way, so do 1 and 3; 3 and 0 are the ends that are closest then.
    angles = torch.tensor([0.0, 1.0, -0.1, 0.9])
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert fragment_path(vectors).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 5000])
def test_a_fragment_path_visits_every_vector_once(count: int) -> None:
    assert sorted(fragment_path(directions(count, 9)).tolist()) == list(range(count))


@pytest.mark.parametrize("vectors", [torch.zeros(50, 3), torch.ones(50, 3), torch.eye(4)[torch.arange(20_000) % 4]])
def test_equal_vectors_are_no_obstacle(vectors: Tensor) -> None:
    assert sorted(fragment_path(vectors).tolist()) == list(range(len(vectors)))


@pytest.mark.parametrize("count", [256, 4096, 9000])
def test_a_fragment_path_is_smoother_than_the_nearest_path(count: int) -> None:
    vectors = directions(count, 9)
    assert smoothness(vectors, fragment_path(vectors)) > smoothness(vectors, nearest_path(vectors))


def test_searching_by_cells_misses_little(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = directions(6000, 9)
    by_cells = smoothness(vectors, fragment_path(vectors))
    monkeypatch.setattr(paths, "EXACT_VECTORS", 6000)
    assert by_cells > smoothness(vectors, fragment_path(vectors)) - 0.002


@pytest.mark.parametrize("path", [fragment_path, nearest_path])
def test_a_check_ends_the_search(path: object) -> None:
    class Enough(Exception):
        pass

    def check() -> None:
        raise Enough

    with pytest.raises(Enough):
        paths.PATHS["fragments" if path is fragment_path else "nearest"](directions(600, 9), check)
