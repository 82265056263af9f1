"""The optimizers that torch does not have, or not like this: Muon, and Ranger of the published recipe."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Of a quintic that takes all singular values in (0, 1] to about 1 in a few iterations.
QUINTIC = (3.4445, -4.7750, 2.0315)

# Rows or columns above which Muon's steps shrink, with the square root.
FULL_STEP_WIDTH = 100


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made orthogonal before each step (Jordan et al., kellerjordan.github.io/posts/muon).

    Only for matrices. The spectral norm of a step is about the learning rate. It is smaller in matrices wider than
    FULL_STEP_WIDTH, because wide predictors diverge otherwise (bench/NOTEBOOK.md). torch.optim.Muon differs: its steps grow
    with the width, and it iterates in bfloat16, which many processors only emulate.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], *, lr: float = 0.1, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                momentum = state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
                direction = orthogonal(matrix.grad.lerp(momentum, group["momentum"]))
                matrix.sub_(direction, alpha=group["lr"] * min(1.0, FULL_STEP_WIDTH / max(matrix.shape)) ** 0.5)
        return loss


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """About U V^T of the singular value decomposition U S V^T, by Newton-Schulz iterations: same shape."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    out: Tensor = matrix.mT if tall else matrix
    out = out / out.norm().clamp_min(1e-7)
    for _ in range(iterations):
        gram = out @ out.T
        out = torch.addmm(out, torch.addmm(gram, gram, gram, beta=b, alpha=c), out, beta=a)
    return out.mT if tall else out


class Ranger(torch.optim.RAdam):
    """RAdam (arXiv 1908.03265) on centralised gradients (arXiv 2004.01461), with Lookahead (arXiv 1907.08610).

    Every `lookahead` steps the slow weights move by `alpha` towards the fast ones, which then start again from there.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.5, 0.999),
        eps: float = 1e-5,
        weight_decay: float = 1e-3,
        lookahead: int = 6,
        alpha: float = 0.5,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled_weight_decay=True)
        self.lookahead = lookahead
        self.alpha = alpha

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        parameters = [parameter for group in self.param_groups for parameter in group["params"] if parameter.grad is not None]
        starts = {parameter: parameter.clone() for parameter in parameters if "slow" not in self.state[parameter]}
        for parameter in parameters:
            if parameter.grad.ndim > 1:
                dims = tuple(range(1, parameter.grad.ndim))
                parameter.grad.sub_(parameter.grad.mean(dim=dims, keepdim=True))
        loss = super().step(closure)
        for parameter, start in starts.items():
            self.state[parameter].update(slow=start, since_sync=0)
        for parameter in parameters:
            state = self.state[parameter]
            state["since_sync"] += 1
            if state["since_sync"] == self.lookahead:
                state["since_sync"] = 0
                parameter.copy_(state["slow"].lerp_(parameter, self.alpha))
        return loss
