"""The decoupled recipe: reconstruction, then distillation (Choi et al., arXiv 2407.00356).

With at most 8 bits, a compression phase follows.
"""

from typing import Any, Literal, Self

from pydantic import model_validator

from nern.request import options
from nern.request.base import TrainingRequest
from nern.request.phases import (
    Distillation,
    PhasePlan,
    QuantisedDistillation,
    QuantisedReconstruction,
    Reconstruction,
    warmed_up,
)

# The default of compression_steps is COMPRESSION_SHARE of all steps, if the predictor is quantised. The default of
# reconstruction_steps is RECONSTRUCTION_SHARE of the other steps.
COMPRESSION_SHARE, RECONSTRUCTION_SHARE = 1 / 6, 5 / 6


class DecoupledRequest(TrainingRequest):
    """The default recipe: first reconstruction of the weights, then distillation of the outputs."""

    recipe: Literal["decoupled"] = "decoupled"
    distillation_learning_rate: options.DistillationLearningRate = 2e-4
    feature_map_weight: options.FeatureMapWeight = 0.0
    bits: options.Bits = 16
    sparsity: options.Sparsity = 0.0
    compression_steps: options.CompressionSteps = None

    @model_validator(mode="after")
    def _steps_suffice(self) -> Self:
        if not self.quantises and (self.sparsity or self.compression_steps):
            raise ValueError("sparsity and compression_steps need at most 8 bits: only then is the predictor quantised")
        if self.quantises and self.compression_steps == 0:
            raise ValueError("with at most 8 bits, compression_steps must be at least 1")
        if (self.reconstruction_steps or 0) + self._compression_steps() > self.steps:
            raise ValueError("the sum of reconstruction_steps and compression_steps must not exceed steps")
        if self._compression_steps() == self.steps:
            raise ValueError("compression_steps must be fewer than steps: they compress what other steps have trained")
        return self

    @property
    def quantises(self) -> bool:
        """Whether the weights of the predictor are quantised to integer codes, which needs quantisation-aware training."""
        return self.bits <= 8

    @property
    def predictor_bits(self) -> tuple[int, float]:
        return self.bits, self.sparsity

    def settled(self, *, architecture: str | None, has_teacher: bool) -> dict[str, Any]:
        compression_steps = self._compression_steps()
        others = self.steps - compression_steps
        reconstruction_steps = self.reconstruction_steps
        if reconstruction_steps is None:
            reconstruction_steps = round(others * RECONSTRUCTION_SHARE)
        return {
            "compression_steps": compression_steps,
            "reconstruction_steps": reconstruction_steps if has_teacher else others,
        }

    def phases(self, *, has_teacher: bool) -> list[PhasePlan]:
        assert self.reconstruction_steps is not None
        assert self.compression_steps is not None
        reconstructed = self.reconstruction_steps
        distilled = self.steps - reconstructed - self.compression_steps
        fitted = self.compression_steps // 2 if has_teacher else self.compression_steps
        quantisation: dict[str, Any] = {"bits": self.bits, "sparsity": self.sparsity}
        return [
            Reconstruction(
                steps=reconstructed,
                learning_rate=warmed_up(self.learning_rate, reconstructed),
                kernel_batch=self.kernel_batch,
            ),
            Distillation(
                steps=distilled,
                learning_rate=warmed_up(self.distillation_learning_rate, distilled),
                feature_map_weight=self.feature_map_weight,
            ),
            QuantisedReconstruction(
                steps=fitted,
                learning_rate=warmed_up(self.learning_rate, fitted),
                kernel_batch=self.kernel_batch,
                first_batch=reconstructed,
                **quantisation,
            ),
            QuantisedDistillation(
                steps=self.compression_steps - fitted,
                learning_rate=warmed_up(self.distillation_learning_rate, self.compression_steps - fitted),
                feature_map_weight=self.feature_map_weight,
                first_batch=distilled,
                **quantisation,
            ),
        ]

    def _compression_steps(self) -> int:
        if not self.quantises or self.compression_steps is not None:
            return self.compression_steps or 0
        return max(1, round(self.steps * COMPRESSION_SHARE))
