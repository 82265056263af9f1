"""Quantisation-aware training of linear layers (LSQ, Esser et al., arXiv 1902.08153).

A quantised weight is an integer code times the scale of its row. A row has the weights of one output of the layer. Codes go
from -(2^(bits-1) - 1) to 2^(bits-1) - 1. Scales are learned together with the weights. The parameter is the logarithm of a
scale, so that small scales change as slowly as large scales and no scale reaches 0. The gradient of rounding is the
straight-through estimator: the backward pass treats rounding as the identity.

A change of a scale moves every weight of the row in proportion to the weight's code. LSQ therefore makes the gradients of
scales smaller. Adam does not depend on the magnitude of gradients. Here the parameter is therefore the logarithm divided by a
unit smaller than 1 (`LOG_SCALE_CODES`), so that one step of Adam changes the scale less.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The smallest positive number in float16. No scale is smaller.
MIN_SCALE = 2.0**-24

# When the parameter of a scale grows by 1, the largest weight of the row grows by about this many codes. If the largest code
# is less than this, the scale grows by the factor e.
LOG_SCALE_CODES = 8

# So many scales are compared to find the initial scale of each row.
SCALE_CANDIDATES = 32


class Linear(nn.Linear):
    """A linear layer whose weight can be quantised: (..., inputs) to (..., outputs).

    Before `quantise` is called, the layer computes what `torch.nn.Linear` computes. Afterwards, every forward pass quantises
    the weight, and rounds the bias and the scales to float16, as the artefact stores them. `bits` is 0 before `quantise`.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.bits = 0
        self.log_scales: nn.Parameter | None
        self.register_parameter("log_scales", None)
        self.mask: Tensor | None
        self.register_buffer("mask", None)

    def quantise(self, bits: int, threshold: float = 0.0) -> None:
        """Begins to quantise the weight to codes of `bits` bits.

        Weights whose magnitude is below `threshold` are pruned: they stay 0.
        """
        self.bits = bits
        self.mask = self.weight.detach().abs() >= threshold
        self.log_scales = nn.Parameter(best_scales(self.weight.detach() * self.mask, bits).log() / self._unit())

    @torch.no_grad()
    def centre(self) -> None:
        """Sets every weight to the value that it is quantised to."""
        self.weight.copy_(self._exact_codes().round() * self.scales()[:, None])

    def codes(self) -> Tensor:
        """The codes of the weights: int16 (outputs, inputs)."""
        return self._exact_codes().round().to(torch.int16)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs (..., outputs) for inputs (..., inputs)."""
        if self.log_scales is None:
            return super().forward(x)
        exact = self._exact_codes()
        quantised = exact + (exact.round() - exact).detach()
        return F.linear(x, quantised * self.scales()[:, None], _half(self.bias))

    def scales(self) -> Tensor:
        """The scales, rounded to what float16 can hold, and never 0: float32 (outputs,)."""
        assert self.log_scales is not None
        scales = (self.log_scales * self._unit()).exp()
        return scales + (scales.half().float().clamp_min(MIN_SCALE) - scales).detach()

    def _unit(self) -> float:
        return min(1.0, LOG_SCALE_CODES / max_code(self.bits))

    def _exact_codes(self) -> Tensor:
        assert self.mask is not None
        limit = max_code(self.bits)
        return (self.weight * self.mask / self.scales()[:, None]).clamp(-limit, limit)


def max_code(bits: int) -> int:
    """The largest code of so many bits."""
    return int(2 ** (bits - 1)) - 1


def best_scales(weight: Tensor, bits: int) -> Tensor:
    """The scale of each row of a weight (rows, inputs): float32 (rows,), never 0.

    Among SCALE_CANDIDATES scales, the function chooses the scale with the least squared error of the quantised row.
    """
    largest = weight.abs().amax(dim=1).clamp_min(1e-4)
    limit = max_code(bits)
    best, least = largest / limit, torch.full_like(largest, torch.inf)
    for fraction in torch.linspace(1 / SCALE_CANDIDATES, 1, SCALE_CANDIDATES):
        scales = (largest * fraction / limit).half().float().clamp_min(MIN_SCALE)
        error = ((weight / scales[:, None]).round().clamp(-limit, limit) * scales[:, None] - weight).square().sum(1)
        best, least = torch.where(error < least, scales, best), torch.minimum(error, least)
    return best


def _half(values: Tensor) -> Tensor:
    """The values rounded to what float16 can hold, with a straight-through estimator as the gradient; same shape."""
    return values + (values.half().float() - values).detach()
