"""Quantisation-aware distillation: a network's own weights, quantised, follow the outputs of the original network.

Scales are learned with the weights (LSQ, Esser et al., arXiv 1902.08153), as logarithms; rounding has the straight-through
estimator. The loss is KL(original || quantised) on augmented images. Kept tensors, those of batch norms too, are not trained.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.rivals.quantised import Quantised
from bench.tables import progress
from nern import losses
from nern.evaluation import Evaluator
from nern.images import InputSource
from nern.quantisation import MIN_SCALE, max_code
from nern.randomness import generator

BATCH_IMAGES = 128
EVALUATIONS = 10


class Quantiser(nn.Module):
    """A trainable weight and the logarithms of its scales; `forward` is the weight that its codes stand for.

    A scale moves all weights of its filter, the largest by as many scales as its code says. So the logarithms are stored in
    units of 1 / the largest code, as LSQ scales the gradients of scales down, which Adam would not notice.
    """

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.largest = max_code(bits)
        self.weight = nn.Parameter(weight.clone())
        self.log_scales = nn.Parameter(Quantised.nearest(weight, bits).scales.log() * self.largest)

    def forward(self) -> Tensor:
        scales = self._scales()
        exact = self._in_scales(scales)
        rounded = exact + (exact.round() - exact).detach()
        return (rounded * scales[:, None]).view_as(self.weight)

    @torch.no_grad()
    def quantised(self) -> Quantised:
        scales = self._scales()
        return Quantised(self._in_scales(scales).round().to(torch.int16).view_as(self.weight), scales)

    def _scales(self) -> Tensor:
        """Float32 (filters,), as float16 can hold them, and never 0."""
        scales = (self.log_scales / self.largest).exp()
        return scales + (scales.half().float().clamp_min(MIN_SCALE) - scales).detach()

    def _in_scales(self, scales: Tensor) -> Tensor:
        return (self.weight.flatten(1) / scales[:, None]).clamp(-self.largest, self.largest)


def distil(
    teacher: nn.Module,
    weights: Mapping[str, Tensor],
    bits: int,
    source: InputSource,
    judge: Evaluator,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
) -> dict[str, Quantised]:
    """The `weights` of the teacher, by name, in the evaluated state with the least divergence on the held-out set.

    Trains for `steps` optimizer steps; the learning rate is a cosine that peaks at `learning_rate`.
    """
    quantisers = {name: Quantiser(weight, bits) for name, weight in weights.items()}
    optimizer = torch.optim.Adam([value for one in quantisers.values() for value in one.parameters()])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps + 1, pct_start=0.02, cycle_momentum=False
    )
    best: dict[str, Quantised] = {}
    least = torch.inf
    for step in range(steps):
        [inputs] = source.batch(BATCH_IMAGES, generator(seed, "images", step))
        with torch.no_grad():
            expected = teacher(inputs)
        student = functional_call(teacher, {name: one() for name, one in quantisers.items()}, (inputs,))
        optimizer.zero_grad()
        losses.distillation(expected, student).backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % max(1, steps // EVALUATIONS) == 0 or step + 1 == steps:
            quantised = {name: one.quantised() for name, one in quantisers.items()}
            divergence = judge.compare({name: one.weight() for name, one in quantised.items()}).rank
            progress.print(f"step {step + 1}/{steps}: divergence {divergence:.4f}", style="dim")
            if divergence < least:
                best, least = quantised, divergence
    return best
