"""Quantisation-aware training of linear layers (LSQ, Esser et al., arXiv 1902.08153).

A quantised weight is an integer code times the scale of its row (output). Codes run from -(2^(bits-1) - 1) to 2^(bits-1) - 1.
Scales are learned together with the weights. The parameter is the logarithm of a scale, so that small scales change as
slowly as large ones and no scale reaches 0. Rounding is a straight-through estimator: its backward pass is the identity.

A change of a scale moves every weight of the row in proportion to the weight's code. LSQ therefore scales the gradients of
scales down. Adam ignores the magnitude of gradients, so the logarithms are stored in larger units instead.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The smallest number that float16 holds: no step is smaller.
MIN_SCALE = 2.0**-24

# One unit of a logarithm changes the largest weight of a row by this many codes, or by a factor e if there are fewer codes.
LOG_SCALE_CODES = 8

# Initial scales that are compared for each row, as fractions of the row's largest weight.
SCALE_CANDIDATES = 32


class Linear(nn.Linear):
    """As `torch.nn.Linear` until `quantise`; from then on its weight is quantised in every forward pass.

    Biases and scales are rounded to float16, which is how an artefact stores them.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.bits = 0
        self.log_scales: nn.Parameter | None
        self.register_parameter("log_scales", None)
        self.mask: Tensor | None
        self.register_buffer("mask", None)

    def quantise(self, bits: int, smallest: float = 0.0) -> None:
        """Rounds to `bits` bits from now on, and prunes: weights of magnitude below `smallest` stay zero."""
        self.bits = bits
        self.mask = self.weight.detach().abs() >= smallest
        self.log_scales = nn.Parameter(best_scales(self.weight.detach() * self.mask, bits).log() / self._unit())

    @torch.no_grad()
    def centre(self) -> None:
        """Moves every weight to the value it is quantised to."""
        self.weight.copy_(self._exact_codes().round() * self.scales()[:, None])

    def codes(self) -> Tensor:
        """The codes, int16 (outputs, inputs)."""
        return self._exact_codes().round().to(torch.int16)

    def forward(self, x: Tensor) -> Tensor:
        if self.log_scales is None:
            return super().forward(x)
        exact = self._exact_codes()
        quantised = exact + (exact.round() - exact).detach()
        return F.linear(x, quantised * self.scales()[:, None], _half(self.bias))

    def scales(self) -> Tensor:
        """The scales as they are used and stored: float32 (outputs,), rounded to float16, and never 0."""
        assert self.log_scales is not None
        scales = (self.log_scales * self._unit()).exp()
        return scales + (scales.half().float().clamp_min(MIN_SCALE) - scales).detach()

    def _unit(self) -> float:
        return min(1.0, LOG_SCALE_CODES / max_code(self.bits))

    def _exact_codes(self) -> Tensor:
        assert self.mask is not None
        most = max_code(self.bits)
        return (self.weight * self.mask / self.scales()[:, None]).clamp(-most, most)


def max_code(bits: int) -> int:
    """The largest code."""
    return int(2 ** (bits - 1)) - 1


def best_scales(weight: Tensor, bits: int) -> Tensor:
    """For each row the step, of some, that rounds it with the least squared error: float32 (rows,), never 0."""
    largest = weight.abs().amax(dim=1).clamp_min(1e-4)
    most = max_code(bits)
    best, least = largest / most, torch.full_like(largest, torch.inf)
    for fraction in torch.linspace(1 / SCALE_CANDIDATES, 1, SCALE_CANDIDATES):
        scales = (largest * fraction / most).half().float().clamp_min(MIN_SCALE)
        error = ((weight / scales[:, None]).round().clamp(-most, most) * scales[:, None] - weight).square().sum(1)
        best, least = torch.where(error < least, scales, best), torch.minimum(error, least)
    return best


def _half(values: Tensor) -> Tensor:
    """The values as float16 can hold them, with gradients passed through."""
    return values + (values.half().float() - values).detach()
