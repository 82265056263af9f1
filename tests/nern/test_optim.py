import pytest
import torch

from nern.optim import Muon, Ranger, orthogonal


def test_gradients_of_matrices_are_centred_and_those_of_biases_are_not() -> None:
    matrix, bias = torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(2))
    optimizer = Ranger([matrix, bias], lr=0.1)
    matrix.grad, bias.grad = torch.tensor([[1.0, 3.0], [5.0, 5.0]]), torch.tensor([1.0, 2.0])
    optimizer.step()
    assert torch.equal(matrix.grad, torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))
    assert torch.equal(bias.grad, torch.tensor([1.0, 2.0]))


def test_every_sixth_step_starts_again_half_way_back() -> None:
    fast, slow = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    plain = torch.optim.RAdam([fast], lr=0.1, betas=(0.5, 0.999), eps=1e-5, weight_decay=0.0, decoupled_weight_decay=True)
    ranger = Ranger([slow], lr=0.1, weight_decay=0.0)
    for _ in range(6):
        fast.grad, slow.grad = torch.ones(3), torch.ones(3)
        plain.step()
        ranger.step()
    torch.testing.assert_close(slow.data, (1 + fast.data) / 2)


def test_it_minimises() -> None:
    parameter = torch.nn.Parameter(torch.full((4, 4), 3.0))
    target = torch.eye(4)
    optimizer = Ranger([parameter], lr=0.05, weight_decay=0.0)
    for _ in range(300):
        optimizer.zero_grad()
        # Centralised gradients move no row's mean, so the rows of parameter and target must agree in it.
        loss = (parameter - parameter.mean(1, keepdim=True) - target + target.mean(1, keepdim=True)).square().sum()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3


@pytest.mark.parametrize("shape", [(6, 6), (4, 16), (16, 4)])
def test_a_matrix_is_made_orthogonal(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(6, 6), (4, 16), (16, 4)])
def test_muon_goes_where_torch_goes(shape: tuple[int, int]) -> None:
    ours, theirs = torch.nn.Parameter(torch.zeros(shape)), torch.nn.Parameter(torch.zeros(shape))
    # Theirs multiplies the rate by max(1, rows / columns) ** 0.5.
    rate = 0.1 / max(1, shape[0] / shape[1]) ** 0.5
    optimizers = Muon([ours], lr=0.1), torch.optim.Muon([theirs], lr=rate, weight_decay=0.0, adjust_lr_fn="original")
    chance = torch.Generator().manual_seed(0)
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=chance)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    # The other one rounds to bfloat16, which has a precision of 1 / 256.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.03 * theirs.abs().max().item())


@pytest.mark.parametrize(("width", "norm"), [(20, 0.1), (100, 0.1), (400, 0.05)])
def test_steps_of_wide_matrices_are_smaller(width: int, norm: float) -> None:
    matrix = torch.nn.Parameter(torch.zeros(width, 20))
    matrix.grad = torch.randn(width, 20, generator=torch.Generator().manual_seed(0))
    Muon([matrix], lr=0.1).step()
    assert torch.linalg.matrix_norm(matrix.detach(), 2).item() == pytest.approx(norm, rel=0.25)
