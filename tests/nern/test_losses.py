import math

import pytest
import torch

from nern import losses


def test_reconstruction_is_one_root_mean_square_over_all_layers() -> None:
    errors = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0], [0.0]])]
    assert losses.reconstruction(errors, 4).item() == pytest.approx(math.sqrt(25 / 4))


def test_distillation_is_the_divergence_of_the_student_from_the_teacher() -> None:
    teacher, student = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log(), torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log()
    expected = (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)) / 2
    assert losses.distillation(teacher, student).item() == pytest.approx(expected, rel=1e-5)


def test_eps_bounds_the_divergence_of_a_student_that_excludes_what_the_teacher_says() -> None:
    teacher, student = torch.tensor([[40.0, 0.0]]), torch.tensor([[0.0, 40.0]])
    assert losses.distillation(teacher, student).item() == pytest.approx(40, rel=1e-3)
    assert losses.distillation(teacher, student, eps=1e-4).item() == pytest.approx(-math.log(1e-4), rel=1e-3)


def test_feature_maps_are_compared_in_direction_and_summed_over_layers() -> None:
    theirs = [torch.tensor([[3.0, 0.0], [0.0, 2.0]]).view(2, 1, 2, 1), torch.tensor([[1.0], [1.0]])]
    ours = [torch.tensor([[0.0, 5.0], [0.0, 2.0]]).view(2, 1, 2, 1), torch.tensor([[-1.0], [1.0]])]
    assert losses.feature_maps(theirs, ours, eps=0).item() == pytest.approx((2 + 0) / 2 + (4 + 0) / 2)
