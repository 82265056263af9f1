"""Convolutions whose weight is stored in a form: weight norm and spectral norm, old and new, and a pruning mask."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune


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


def made(name: str) -> nn.Module:
    """The convolution of a case, in eval mode, as a training may leave it."""
    torch.manual_seed(0)
    module = CASES[name]()
    with torch.no_grad():
        for parameter_name, parameter in module.named_parameters():
            if parameter_name.endswith(("_g", "original0")):
                parameter.mul_(torch.rand_like(parameter) + 0.5)
    module.train()(inputs_of(module))  # spectral norm iterates
    module.eval()(inputs_of(module))  # the older implementations compute the weight when they are called
    return module
