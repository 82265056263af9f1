"""The paper recipe: the published training, with all losses at once (Ashkenazi et al., arXiv 2212.13554)."""

from typing import Any, Literal, Self

from pydantic import model_validator

from nern.errors import InconsistentOptions
from nern.request import options
from nern.request.base import TrainingRequest
from nern.request.phases import Cosine, Joint, PhasePlan

# Published options that differ from the defaults, which are those of the CIFAR ResNet-20 (arXiv 2212.13554, appendix).
PUBLISHED: dict[str, dict[str, Any]] = {
    "cifar/resnet56": {"feature_map_weight": 1e-5, "logit_weight": 1e-5, "reconstruction_steps": 10_000},
    "torchvision/resnet18": {
        "feature_map_weight": 1e-6,
        "logit_weight": 1e-6,
        "reconstruction_steps": 20_000,
        "steps": 160_000,
        "kernel_batch": 65_536,
        "image_batch": 32,
    },
}

# The learning rate at the end of the schedule.
FLOOR = 1e-6


class PaperRequest(TrainingRequest):
    """The published recipe. Its defaults are those of the CIFAR ResNet-20. Two other networks have defaults of their own."""

    recipe: Literal["paper"] = "paper"
    small_kernels: options.SmallKernelOption = "cropped"
    path: options.Path = "nearest"
    layer_features: options.LayerFeatures = 0
    depth: options.Depth = 5
    activation: options.Activation = "relu"
    layer_scaling: options.LayerScaling = None
    base: options.Base = 0.76
    levels: options.Levels = 40
    steps: options.Steps = 68_600
    kernel_batch: options.KernelBatch = 4096
    image_batch: options.ImageBatch = 256
    learning_rate: options.LearningRate = 5e-3
    feature_map_weight: options.FeatureMapWeight = 1e-4
    logit_weight: options.LogitWeight = 1e-4
    weight_decay: options.WeightDecay = 1e-3
    magnitude_probability: options.MagnitudeProbability = 0.2

    @model_validator(mode="after")
    def _steps_suffice(self) -> Self:
        if "steps" in self.model_fields_set and (self.reconstruction_steps or 0) > self.steps:
            raise ValueError("reconstruction_steps must not exceed steps")
        return self

    def settled(self, *, architecture: str | None, has_teacher: bool) -> dict[str, Any]:
        """The values that were published for the architecture, for options that the request does not give.

        The published reconstruction_steps belong to the published steps. If the request gives steps, the published
        reconstruction_steps are not used.
        """
        given = self.model_fields_set | ({"reconstruction_steps"} if "steps" in self.model_fields_set else set())
        values = {name: value for name, value in PUBLISHED.get(architecture or "", {}).items() if name not in given}
        steps = values.get("steps", self.steps)
        reconstruction_steps = values.get("reconstruction_steps", self.reconstruction_steps) or 0
        if reconstruction_steps > steps:
            raise InconsistentOptions("reconstruction_steps must not exceed steps", "/reconstruction_steps")
        return values | {"reconstruction_steps": reconstruction_steps if has_teacher else steps}

    def phases(self, *, has_teacher: bool) -> list[PhasePlan]:
        assert self.reconstruction_steps is not None
        alone = self.reconstruction_steps
        shared: dict[str, Any] = {
            "kernel_batch": self.kernel_batch,
            "magnitude_probability": self.magnitude_probability,
            "weight_decay": self.weight_decay,
        }
        return [
            Joint(
                name="reconstruction",
                steps=alone,
                learning_rate=Cosine(self.learning_rate, self.steps, floor=FLOOR),
                first_batch=0,
                evaluations=5,
                **shared,
            ),
            Joint(
                name="distillation",
                steps=self.steps - alone,
                learning_rate=Cosine(self.learning_rate, self.steps, floor=FLOOR, first=alone),
                first_batch=alone,
                evaluations=100,
                feature_map_weight=self.feature_map_weight,
                logit_weight=self.logit_weight,
                **shared,
            ),
        ]
