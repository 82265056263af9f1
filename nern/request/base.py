"""What every recipe can be asked for."""

from abc import abstractmethod
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator

from nern.request import options
from nern.request.phases import PhasePlan


class TrainingRequest(BaseModel):
    """The options that all recipes have. An explicit null stands for the recipe's default.

    An option without a default of its own (hidden, ratio, reconstruction_steps, …) gets its value from other options and from
    the network; see `settled`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    needs_teacher: ClassVar[bool] = False

    recipe: str

    layers: options.Layers = "all"
    small_kernels: options.SmallKernelOption = "tiled"
    permutation: options.Permutation = "cross-filter"
    path: options.Path = "fragments"

    hidden: options.Hidden = None
    ratio: options.Ratio = None
    target: options.Target = None
    depth: options.Depth = 6
    activation: options.Activation = "silu"
    base: options.Base = 1.25
    levels: options.Levels = 20
    layer_features: options.LayerFeatures = 16
    layer_scaling: options.LayerScaling = 0.5

    steps: options.Steps = 3000
    reconstruction_steps: options.ReconstructionSteps = None
    kernel_batch: options.KernelBatch = 8192
    image_batch: options.ImageBatch = 128
    learning_rate: options.LearningRate = 0.1

    augment: options.Augment = True
    held_out: options.HeldOut = 0.1
    synthesised_images: options.SynthesisedImages = 1024
    synthesis_steps: options.SynthesisSteps = 150
    synthesis_learning_rate: options.SynthesisLearningRate = 0.1

    importance: options.Importance = False
    seed: options.Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, values: Any) -> Any:
        return {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _has_one_size(self) -> Self:
        if self.hidden is not None and self.ratio is not None:
            raise ValueError("give hidden or ratio, not both")
        if self.target is not None and (self.hidden is not None or self.ratio is not None):
            raise ValueError("a target finds the size: give no hidden or ratio with it")
        if self.base ** (self.levels - 1) > options.MAX_FREQUENCY_RANGE:
            raise ValueError(f"base to the power of levels - 1 must not exceed {options.MAX_FREQUENCY_RANGE:.0f}")
        return self

    @abstractmethod
    def settled(self, *, architecture: str | None, distils: bool) -> dict[str, Any]:
        """The options whose values depend on other options, on the architecture, or on whether there is a teacher.

        Raises InconsistentOptions.
        """

    @abstractmethod
    def phases(self, *, distils: bool) -> list[PhasePlan]:
        """The phases of a request in which every option has its value, but for the synthesis of images."""

    @property
    def predictor_bits(self) -> tuple[int, float]:
        """Bits of a stored weight of the predictor, and the fraction of the weights that are zero."""
        return 32, 0.0

    def with_values(self, values: dict[str, Any]) -> Self:
        """The same request with some options changed. Raises ValueError (pydantic's) for values that do not go together."""
        return type(self)(**(self.model_dump(exclude_unset=True) | values))
