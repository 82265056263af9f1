"""Reparametrised weights are found, computed as torch computes them, and come back in the form that they had."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from nern.forms import find_forms
from nern.layers import StateDict


def old_weight_norm(module: nn.Module, dim: int | None = 0) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch wants the newer one, but files have the older one
        return nn.utils.weight_norm(module, dim=dim)  # type: ignore[arg-type]  # None is one norm for the whole weight


def old_spectral_norm(module: nn.Module) -> nn.Module:
    return nn.utils.spectral_norm(module, n_power_iterations=20)


def pruned(module: nn.Module) -> nn.Module:
    prune.l1_unstructured(module, "weight", 0.5)
    return module


CASES: dict[str, Callable[[], nn.Module]] = {
    "weight norm, old": lambda: old_weight_norm(nn.Conv1d(4, 6, 5)),
    "weight norm, old, one norm": lambda: old_weight_norm(nn.Conv2d(4, 6, 3), None),
    "weight norm, old, second axis": lambda: old_weight_norm(nn.ConvTranspose1d(4, 6, 5), 1),
    "weight norm, new": lambda: parametrizations.weight_norm(nn.Conv2d(4, 6, 3)),
    "spectral norm, old": lambda: old_spectral_norm(nn.Conv2d(4, 6, 3)),
    "spectral norm, old, transposed": lambda: old_spectral_norm(nn.ConvTranspose2d(5, 5, 3)),
    "spectral norm, new": lambda: parametrizations.spectral_norm(nn.Conv2d(4, 6, 3), n_power_iterations=20),
    "pruned": lambda: pruned(nn.Conv2d(4, 6, 3)),
}


def weight_of(module: nn.Module) -> Tensor:
    """The weight that a module computes with."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def inputs_of(module: nn.Module) -> Tensor:
    """An input that a convolution can take."""
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d)
    return torch.randn(1, module.in_channels, *[12] * len(module.kernel_size))


@pytest.fixture(params=CASES)
def module(request: pytest.FixtureRequest) -> nn.Module:
    """A convolution with a reparametrised weight, in eval mode."""
    torch.manual_seed(0)
    made = CASES[request.param]()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(("_g", "original0")):
                parameter.mul_(torch.rand_like(parameter) + 0.5)
    made.train()(inputs_of(made))  # spectral norm iterates
    made.eval()(inputs_of(made))  # the older implementations compute the weight when they are called
    return made


def test_the_weight_is_what_torch_computes(module: nn.Module) -> None:
    [form] = find_forms(module.state_dict())
    assert form.weight == "weight"
    torch.testing.assert_close(form.compute(module.state_dict()), weight_of(module), rtol=1e-5, atol=1e-7)


def test_another_weight_comes_back_in_the_form(module: nn.Module) -> None:
    state_dict: StateDict = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    [form] = find_forms(state_dict)
    weight = weight_of(module) + 0.02 * torch.randn_like(weight_of(module)) * (weight_of(module) != 0)
    restored = form.restore(weight, state_dict)
    assert restored.keys() == set(form.rebuilt)
    assert {name: tensor.shape for name, tensor in restored.items()} == {name: state_dict[name].shape for name in restored}
    module.load_state_dict(state_dict | restored, strict=True)
    module(inputs_of(module))
    torch.testing.assert_close(weight_of(module), weight, rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_weight(module: nn.Module) -> None:
    [form] = find_forms(module.state_dict())
    weight = weight_of(module).requires_grad_()
    restored = form.restore(weight, module.state_dict())
    [gradient] = torch.autograd.grad(restored[form.parts[0]].sum(), weight)
    assert gradient.abs().sum() > 0


def test_names_keep_their_modules() -> None:
    network = nn.ModuleDict(
        {"a": nn.Sequential(parametrizations.weight_norm(nn.Conv2d(2, 3, 3))), "b": pruned(nn.Conv2d(3, 2, 1))}
    )
    assert [form.weight for form in find_forms(network.state_dict())] == ["a.0.weight", "b.weight"]


def test_other_tensors_are_not_taken_for_forms() -> None:
    shapes: StateDict = {
        "a_v": torch.zeros(4, 3, 3), "a_g": torch.zeros(5, 1, 1), "b_orig": torch.zeros(2, 2), "c_v": torch.zeros(2),
        "d_orig": torch.zeros(2, 3), "d_mask": torch.zeros(3, 2), "e_v": torch.zeros(3, 3), "e_g": torch.zeros(3, 1),
        "e": torch.zeros(3, 3),
    }  # fmt: skip
    assert find_forms(shapes) == []
