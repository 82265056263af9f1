"""Predictors in few bits: linear layers that learn to live with rounded weights.

A weight is a whole number of steps between -(2^(bits-1) - 1) and 2^(bits-1) - 1, and each row (output) has a step of its own,
learned like the weights (LSQ, Esser et al., arXiv 1902.08153), as its logarithm, so that small ones move as slowly as large
ones, and none to 0. Rounding passes gradients through unchanged.

A step moves all weights of its row, the largest by as many steps as its code says. LSQ scales the gradients of steps down for
that; Adam, which trains them here, does not see how large gradients are, so the logarithms are scaled up.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The smallest number that float16 holds: no step is smaller.
LEAST = 2.0**-24

# The logarithms of steps are in units of what moves the largest weights by so many steps, or of 1 if there are fewer.
PACE = 8

# Fractions of the largest weight of a row at which its step is tried first.
CLIPS = 32


class Linear(nn.Linear):
    """As `torch.nn.Linear` until `round_to`; from then on its weight is rounded in every forward pass.

    Biases and steps are used as float16 can hold them, which is how an artefact stores them.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.bits = 0
        self.log_steps: nn.Parameter | None
        self.register_parameter("log_steps", None)
        self.mask: Tensor | None
        self.register_buffer("mask", None)

    def round_to(self, bits: int, smallest: float = 0.0) -> None:
        """Rounds to `bits` bits from now on, and prunes: weights of magnitude below `smallest` stay zero."""
        self.bits = bits
        self.mask = self.weight.detach().abs() >= smallest
        self.log_steps = nn.Parameter(best_steps(self.weight.detach() * self.mask, bits).log() / self._unit())

    @torch.no_grad()
    def centre(self) -> None:
        """Moves every weight to the value it is rounded to."""
        self.weight.copy_(self._in_steps().round() * self.sizes()[:, None])

    def codes(self) -> Tensor:
        """The rounded weight in steps, int16 (outputs, inputs)."""
        return self._in_steps().round().to(torch.int16)

    def forward(self, x: Tensor) -> Tensor:
        if self.log_steps is None:
            return super().forward(x)
        exact = self._in_steps()
        rounded = exact + (exact.round() - exact).detach()
        return F.linear(x, rounded * self.sizes()[:, None], _half(self.bias))

    def sizes(self) -> Tensor:
        """The steps as they are used and stored: float32 (outputs,), but what float16 can hold, and never 0."""
        assert self.log_steps is not None
        steps = (self.log_steps * self._unit()).exp()
        return steps + (steps.half().float().clamp_min(LEAST) - steps).detach()

    def _unit(self) -> float:
        return min(1.0, PACE / levels(self.bits))

    def _in_steps(self) -> Tensor:
        assert self.mask is not None
        most = levels(self.bits)
        return (self.weight * self.mask / self.sizes()[:, None]).clamp(-most, most)


def levels(bits: int) -> int:
    """The largest code."""
    return int(2 ** (bits - 1)) - 1


def best_steps(weight: Tensor, bits: int) -> Tensor:
    """For each row the step, of some, that rounds it with the least squared error: float32 (rows,), never 0."""
    largest = weight.abs().amax(dim=1).clamp_min(1e-4)
    most = levels(bits)
    best, least = largest / most, torch.full_like(largest, torch.inf)
    for fraction in torch.linspace(1 / CLIPS, 1, CLIPS):
        steps = (largest * fraction / most).half().float().clamp_min(LEAST)
        error = ((weight / steps[:, None]).round().clamp(-most, most) * steps[:, None] - weight).square().sum(1)
        best, least = torch.where(error < least, steps, best), torch.minimum(error, least)
    return best


def _half(values: Tensor) -> Tensor:
    """The values as float16 can hold them, with gradients passed through."""
    return values + (values.half().float() - values).detach()
