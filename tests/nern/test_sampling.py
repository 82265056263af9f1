import pytest
import torch

from nern.training import sampling


def test_kernel_batches_cover_all_before_any_comes_again() -> None:
    shuffled = sampling.Shuffled(10, 4, seed=0)
    batches = [shuffled.batch(step) for step in range(9)]
    for number in range(1, 10):
        times = torch.cat(batches[:number]).bincount(minlength=10)
        assert times.max() - times.min() <= 1
    assert {len(batch) for batch in batches} == {3, 4}
    assert not torch.equal(torch.cat(batches[:3]), torch.cat(batches[3:6]))


def test_kernels_are_drawn_by_magnitude_with_the_given_probability() -> None:
    weight = torch.ones(100, 1, 1)
    weight[0] = 1e6
    always = sampling.UniformOrByMagnitude([weight], 5, 1.0, seed=0)
    never = sampling.UniformOrByMagnitude([weight], 5, 0.0, seed=0)
    assert all(always.batch(step).tolist() == [0] * 5 for step in range(40))
    assert sum(0 in never.batch(step) for step in range(40)) < 10


def test_kernels_are_drawn_in_proportion_to_their_norms() -> None:
    weight = torch.tensor([1.0, 0.0, 3.0]).view(3, 1, 1)
    drawn = sampling.UniformOrByMagnitude([weight.repeat(1000, 1, 1)], 3000, 1.0, seed=0).batch(0) % 3
    assert len(drawn) == 3000
    assert drawn.bincount(minlength=3).tolist() == [pytest.approx(750, abs=100), 0, pytest.approx(2250, abs=100)]
