"""Ranger, the optimizer of the published recipe: RAdam, Lookahead and gradient centralisation in one."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


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
