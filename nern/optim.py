"""Two optimizers: Muon, which differs from the one in torch, and Ranger, which the published recipe uses."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Coefficients of x, x³ and x⁵. A few iterations of this polynomial take every singular value in (0, 1] to about 1. The values
# are those of Jordan et al.
QUINTIC = (3.4445, -4.7750, 2.0315)

# Muon makes smaller steps in matrices with more rows or columns than this. The step is divided by the square root of the
# width over this number.
FULL_STEP_WIDTH = 100


class Muon(torch.optim.Optimizer):
    """Gradient descent with momentum, in which each step is made orthogonal (Jordan et al., kellerjordan.github.io/posts/muon).

    All parameters must be matrices. The spectral norm of a step is about the learning rate. The step is smaller for matrices
    wider than FULL_STEP_WIDTH, because wide predictors diverge otherwise (bench/NOTEBOOK.md). torch.optim.Muon differs: its
    steps grow with the width, and it computes in bfloat16, which many processors only emulate.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]], *, lr: float = 0.1, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Makes one step. Returns the loss of `closure`, if there is one, as all optimizers of torch do."""
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
    """An orthogonal matrix near a matrix (m, n), of the same shape.

    For a matrix with the singular value decomposition U S V^T, the result is about U V^T. It is found by Newton-Schulz
    iterations.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    out: Tensor = matrix.mT if tall else matrix
    out = out / out.norm().clamp_min(1e-7)
    for _ in range(iterations):
        gram = out @ out.T
        out = torch.addmm(out, torch.addmm(gram, gram, gram, beta=b, alpha=c), out, beta=a)
    return out.mT if tall else out


class Ranger(torch.optim.RAdam):
    """RAdam (arXiv 1908.03265) with gradient centralisation (arXiv 2004.01461) and Lookahead (arXiv 1907.08610).

    RAdam updates the fast weights. After every `lookahead` steps, the slow weights move towards the fast weights by the
    fraction `alpha` of the difference. The fast weights then take the values of the slow weights.
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
        """Makes one step. Returns the loss of `closure`, if there is one, as all optimizers of torch do."""
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
