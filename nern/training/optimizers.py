"""The optimizers of the phases, and the learning rates of their parameter groups."""

import torch

from nern.optim import Muon
from nern.predictor import Predictor
from nern.training.targets import Targets, relative_error

Optimizers = tuple[torch.optim.Optimizer, ...]

# The learning rate of a parameter group is the learning rate of the phase times this entry of the group. The default is 1.
RELATIVE_RATE = "relative_rate"

# The learning rate of biases and of the embedding, relative to the learning rate of the matrices.
OTHER_PARAMETERS_RATE = 0.05

# A phase that begins with at least this relative error of the weights uses its whole learning rate.
FULL_RATE_ERROR = 0.3


def muon(predictor: Predictor, relative_rate: float = 1.0) -> Optimizers:
    """Muon for the matrices of the linear layers, and Adam for the other parameters.

    `python -m bench.optimizers` compares the error after the same steps with that of Adam alone.
    """
    matrices = {f"{name}.weight": layer.weight for name, layer in predictor.linear()}
    others = [
        {
            "params": [parameter],
            RELATIVE_RATE: relative_rate if name.endswith("log_scales") else OTHER_PARAMETERS_RATE * relative_rate,
        }
        for name, parameter in predictor.named_parameters()
        if name not in matrices
    ]
    return Muon([{"params": list(matrices.values()), RELATIVE_RATE: relative_rate}]), torch.optim.Adam(others)


def adam(predictor: Predictor, relative_rate: float) -> Optimizers:
    """Adam for all parameters."""
    return (torch.optim.Adam([{"params": list(predictor.parameters()), RELATIVE_RATE: relative_rate}]),)


def relative_rate_of(targets: Targets, weights: list[torch.Tensor]) -> float:
    """min(1, e / 0.3)², where e is the relative error of the rendered weights with respect to `weights`, one for each layer.

    Large steps would destroy a predictor that fits its weights well (bench/NOTEBOOK.md).
    """
    error = relative_error(targets.representation.render_all(), weights)
    return min(1.0, error / FULL_RATE_ERROR) ** 2


def set_learning_rate(optimizers: Optimizers, rate: float) -> None:
    """Sets the learning rate of every parameter group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get(RELATIVE_RATE, 1.0)


def zero_grad(optimizers: Optimizers) -> None:
    """Removes the gradients of all parameters."""
    for optimizer in optimizers:
        optimizer.zero_grad()


def update(optimizers: Optimizers) -> None:
    """Makes one step of every optimizer."""
    for optimizer in optimizers:
        optimizer.step()
