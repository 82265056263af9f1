"""The request that all recipes extend."""

from abc import abstractmethod
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator

from nern.request import options
from nern.request.phases import PhasePlan


class TrainingRequest(BaseModel):
    """The options that all recipes have. A null stands for the default of the recipe.

    Some options, such as hidden, ratio and reconstruction_steps, have no fixed default. Planning derives their values from
    other options and from the network; see `settled`.
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

    objective: options.ObjectiveOption = None
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
    def _is_consistent(self) -> Self:
        if self.hidden is not None and self.ratio is not None:
            raise ValueError("hidden and ratio exclude each other: give one of them")
        if self.target is not None and (self.hidden is not None or self.ratio is not None):
            raise ValueError("target excludes hidden and ratio: the search for the target finds the size of the predictor")
        if self.base ** (self.levels - 1) > options.MAX_FREQUENCY_RANGE:
            limit = f"{options.MAX_FREQUENCY_RANGE:.0f}"
            raise ValueError(f"base to the power of levels - 1 must not exceed {limit}: give a smaller base or fewer levels")
        return self

    @abstractmethod
    def settled(self, *, architecture: str | None, has_teacher: bool) -> dict[str, Any]:
        """The values of the options that depend on other options, on the architecture, or on whether there is a teacher.

        `has_teacher` says whether there is a teacher. Raises InconsistentOptions if the values exclude each other.
        """

    @abstractmethod
    def phases(self, *, has_teacher: bool) -> list[PhasePlan]:
        """The phases of a request whose values are settled, without the synthesis phase. A phase may have 0 steps."""

    @property
    def predictor_bits(self) -> tuple[int, float]:
        """The bits of a weight of the stored predictor, and the fraction of its weights that are 0."""
        return 32, 0.0

    def with_values(self, values: dict[str, Any]) -> Self:
        """The same request with other values of some options.

        Raises ValueError (pydantic's ValidationError) for values that are not allowed or exclude each other.
        """
        return type(self)(**(self.model_dump(exclude_unset=True) | values))
