"""The regularised recipe: fine-tuning for smoothness (arXiv 2212.13554, section 4.2), then the decoupled recipe."""

from typing import Literal, Self

from pydantic import model_validator

from nern.request import options
from nern.request.decoupled import DecoupledRequest
from nern.request.phases import PhasePlan, Smoothing, warmed_up


class RegularisedRequest(DecoupledRequest):
    """First the original network is fine-tuned, so that neighbouring tiles become similar. Then the decoupled recipe follows.

    The teacher of all phases is the network as it was before the fine-tuning.
    """

    needs_teacher = True

    recipe: Literal["regularised"] = "regularised"  # type: ignore[assignment]  # a recipe narrows the type
    permutation: options.Permutation = "none"
    smoothing_steps: options.SmoothingSteps = 300
    smoothing_weight: options.SmoothingWeight = 1e-4
    smoothing_learning_rate: options.SmoothingLearningRate = 1e-3

    @model_validator(mode="after")
    def _fits_the_smoothed_weights(self) -> Self:
        if self.reconstruction_steps == 0:
            raise ValueError(
                "the regularised recipe needs at least 1 of reconstruction_steps, which fit the fine-tuned weights"
            )
        return self

    def phases(self, *, has_teacher: bool) -> list[PhasePlan]:
        smoothing = Smoothing(
            steps=self.smoothing_steps,
            learning_rate=warmed_up(self.smoothing_learning_rate, self.smoothing_steps),
            smoothness_weight=self.smoothing_weight,
        )
        return [smoothing, *super().phases(has_teacher=has_teacher)]
