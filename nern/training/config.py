"""What can be chosen about a training. One class a recipe, so that every default is the recipe's own."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nern.embedding import MAX_RANGE, EmbeddingConfig
from nern.importance import PRUNED_NETWORKS
from nern.layers import Layer
from nern.paths import PathKind
from nern.permutation import PermutationKind
from nern.predictor import MAX_HIDDEN, Activation, PredictorConfig
from nern.tiles import SmallKernels, Tiles

DEFAULT_RATIO = 0.4

# Of all steps, those with quantised weights, if any are quantised; and of the others, those without distillation.
COMPRESSION_SHARE, RECONSTRUCTION_SHARE = 1 / 6, 5 / 6

Steps = Annotated[int, Field(ge=1, le=10_000_000)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]


class AccuracyTarget(BaseModel):
    """How much a predictor may lose."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    drop: float = Field(gt=0, le=100, description="Points of accuracy (percent) on the held-out images")


class TrainingConfig(BaseModel):
    """The hyper-parameters that all recipes have. An explicit null stands for the default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    layers: Literal["all", "paper"] | Annotated[list[str], Field(min_length=1, fail_fast=True)] = Field(
        "all",
        description="All convolutions, the ones that the authors predict, or names of weights, those of linear layers too",
    )
    small_kernels: SmallKernels = Field(
        "tiled",
        description="Kernels of few weights: predicted several channels at a time by a head of their own (tiled), "
        "or one by one as the centre of a prediction of the largest size (cropped)",
    )
    permutation: PermutationKind = Field("cross-filter", description="Order of the kernels, for smoothness")
    path: PathKind = Field(
        "fragments",
        description="How the order is found: most similar pairs first, or from each to the nearest one that is left",
    )
    hidden: int | None = Field(None, ge=1, le=MAX_HIDDEN, description="Width of the predictor; excludes ratio")
    ratio: float | None = Field(
        None, gt=0, le=4, description=f"Parameters of the predictor / represented weights; {DEFAULT_RATIO} if hidden is null"
    )
    base: float = Field(1.25, gt=0, le=4, description="Ratio of neighbouring embedding frequencies")
    levels: int = Field(20, ge=1, le=128, description="Embedding frequencies an axis")
    layer_features: int = Field(
        16, ge=0, le=256, description="Learned features of each layer in place of its frequencies; 0 for frequencies"
    )
    depth: int = Field(6, ge=2, le=32, description="Linear layers of the predictor")
    activation: Activation = Field("silu", description="Activation function of the predictor")
    layer_scaling: float | None = Field(
        0.5, ge=0, le=1, description="How far a layer's predictions are scaled to its own weights (1) or the network's (0)"
    )

    target: AccuracyTarget | None = Field(
        None, description="Accuracy to meet: the size is searched for, in three trainings; excludes hidden and ratio"
    )

    steps: Steps = Field(3000, description="Optimisation steps in all")
    reconstruction_steps: int | None = Field(
        None, ge=0, le=10_000_000, description="How many of them, at the start, go without distillation"
    )
    kernel_batch: int = Field(
        8192,
        ge=1,
        le=1_048_576,
        description="Kernels (or tiles of small ones) a step through which the reconstruction's gradient flows",
    )
    image_batch: int = Field(128, ge=1, le=4096, description="Images a step of distillation")
    learning_rate: LearningRate = Field(0.1, description="Peak learning rate")

    augment: bool = Field(True, description="Mirror and shift the images")
    held_out: float = Field(
        0.1, gt=0, le=0.5, description="Fraction of the dataset (at most 2,000 images) for model selection and the report"
    )
    synthesised_images: int = Field(1024, ge=1, le=1_000_000, description="Images to make when the data is matched noise")
    synthesis_steps: int = Field(150, ge=1, le=100_000, description="Steps for each 128 of them")
    synthesis_learning_rate: LearningRate = Field(0.1, description="Peak learning rate of these steps")
    importance: bool = Field(
        False, description="Measure which weights matter by pruning the original network, as a part of the report"
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of everything random but the search for paths")

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, values: Any) -> Any:
        return {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hidden is not None and self.ratio is not None:
            raise ValueError("give hidden or ratio, not both")
        if self.target is not None and (self.hidden is not None or self.ratio is not None):
            raise ValueError("a target finds the size: give no hidden or ratio with it")
        if (self.reconstruction_steps or 0) > self._most_steps():
            raise ValueError("reconstruction_steps must not exceed steps")
        if self.base ** (self.levels - 1) > MAX_RANGE:
            raise ValueError(f"base to the power of levels - 1 must not exceed {MAX_RANGE:.0f}")
        return self

    def _most_steps(self) -> int:
        """What `steps` can be resolved to."""
        return self.steps

    def resolve(self, layers: Sequence[Layer], *, distil: bool, architecture: str | None = None) -> Self:
        """The same with what depends on the network filled in; without `distil` all steps are reconstruction. The
        architecture matters to the published recipe alone.

        Raises ValueError for what does not go together with that.
        """
        hidden = self.hidden
        if hidden is None and self.target is None:
            hidden = self._predictor(1).within(self.ratio or DEFAULT_RATIO, self.tiles(layers)).hidden
        reconstruction_steps = (self.reconstruction_steps or 0) if distil else self.steps
        update = {"hidden": hidden, "ratio": None, "reconstruction_steps": reconstruction_steps}
        return self.model_copy(update=update | {"importance": self.importance and distil})

    @property
    def predictor(self) -> PredictorConfig:
        """The predictor that a resolved configuration asks for."""
        assert self.hidden is not None, "resolve() comes first"
        return self._predictor(self.hidden)

    @property
    def distils(self) -> bool:
        """Whether a step of a resolved configuration follows the original network, if there is one to follow."""
        assert self.reconstruction_steps is not None, "resolve() comes first"
        return self.reconstruction_steps < self.steps

    @property
    def comparisons(self) -> int:
        """How many networks are compared after the last step, for the importance of weights."""
        return PRUNED_NETWORKS if self.importance else 0

    def tiles(self, layers: Sequence[Layer]) -> Tiles:
        """The layers, cut as the configuration says."""
        return Tiles(layers, self.small_kernels)

    def _predictor(self, hidden: int) -> PredictorConfig:
        embedding = EmbeddingConfig(base=self.base, levels=self.levels, layer_features=self.layer_features or None)
        return PredictorConfig(embedding=embedding, hidden=hidden, depth=self.depth, activation=self.activation)


class DecoupledConfig(TrainingConfig):
    """Reconstruction alone, then distillation of the logits alone (Choi et al., arXiv 2407.00356)."""

    recipe: Literal["decoupled"] = "decoupled"
    distillation_learning_rate: LearningRate = Field(
        2e-4, description="Peak learning rate of the second phase; less, the better the reconstruction is"
    )
    feature_map_weight: Weight = Field(0.0, description="Weight of L_fmd beside L_kd in the second phase")
    bits: Literal[2, 3, 4, 5, 6, 7, 8, 16, 32] = Field(
        16, description="Of the predictor's weights: up to 8 are learned and entropy coded, 16 and 32 are floating point"
    )
    sparsity: float = Field(0.0, ge=0, le=0.95, description="Fraction of the predictor's weights to prune; with at most 8 bits")
    compression_steps: int | None = Field(
        None,
        ge=0,
        le=10_000_000,
        description="How many of the steps, at the end, train the quantised predictor: the first half to predict what it did "
        "before, the second half to do what the teacher does",
    )

    @model_validator(mode="after")
    def _compresses_or_not(self) -> Self:
        if not self.coded and (self.sparsity or self.compression_steps):
            raise ValueError("sparsity and compression_steps need at most 8 bits")
        if self.coded and self.compression_steps == 0:
            raise ValueError("at most 8 bits need at least one of compression_steps")
        if (self.reconstruction_steps or 0) + self._compression_steps() > self.steps:
            raise ValueError("reconstruction_steps and compression_steps must not exceed steps")
        if self._compression_steps() == self.steps:
            raise ValueError("compression_steps compress what other steps have trained: steps must be more")
        return self

    def _compression_steps(self) -> int:
        if not self.coded or self.compression_steps is not None:
            return self.compression_steps or 0
        return max(1, round(self.steps * COMPRESSION_SHARE))

    @property
    def coded(self) -> bool:
        """Whether the predictor is to be quantised to few bits, and learns to live with that."""
        return self.bits <= 8

    def resolve(self, layers: Sequence[Layer], *, distil: bool, architecture: str | None = None) -> Self:
        """See `TrainingConfig`; what compression takes is taken from the others in proportion."""
        compression_steps = self._compression_steps()
        others = self.steps - compression_steps
        reconstruction_steps = self.reconstruction_steps
        if reconstruction_steps is None:
            reconstruction_steps = round(others * RECONSTRUCTION_SHARE)
        config = super().resolve(layers, distil=distil)
        return config.model_copy(
            update={
                "compression_steps": compression_steps,
                "reconstruction_steps": reconstruction_steps if distil else others,
            }
        )


class RegularisedConfig(DecoupledConfig):
    """The decoupled recipe after a fine-tuning that makes neighbouring kernels similar (arXiv 2212.13554, section 4.2).

    The original network is the teacher of both; its own weights are changed instead of, or after, their order.
    """

    recipe: Literal["regularised"] = "regularised"  # type: ignore[assignment]  # another recipe
    permutation: PermutationKind = Field("none", description="Order of the kernels, in which they are made similar")
    smoothing_steps: int = Field(300, ge=1, le=10_000_000, description="Steps of fine-tuning, before all others")
    smoothing_weight: Weight = Field(1e-4, description="Weight of the neighbours' cosines, summed, beside L_kd (lambda)")
    smoothing_learning_rate: LearningRate = Field(1e-3, description="Peak learning rate of the fine-tuning")

    @model_validator(mode="after")
    def _fits_what_it_smooths(self) -> Self:
        if self.reconstruction_steps == 0:
            raise ValueError("the regularised recipe needs reconstruction_steps, which fit the smoothed weights")
        return self


# Of the published recipe, where they differ from CIFAR ResNet-20's (arXiv 2212.13554, appendix).
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


class PaperConfig(TrainingConfig):
    """The published recipe: all losses at once, Ranger, kernel batches (Ashkenazi et al., arXiv 2212.13554)."""

    recipe: Literal["paper"] = "paper"
    small_kernels: SmallKernels = Field("cropped", description="Kernels of few weights; see the decoupled recipe")
    path: PathKind = Field("nearest", description="How the order is found; see the decoupled recipe")
    layer_features: int = Field(0, ge=0, le=256, description="Learned features of each layer; see the decoupled recipe")
    depth: int = Field(5, ge=2, le=32, description="Linear layers of the predictor")
    activation: Activation = Field("relu", description="Activation function of the predictor")
    layer_scaling: float | None = Field(None, ge=0, le=1, description="As in the decoupled recipe; null for no scaling")
    base: float = Field(0.76, gt=0, le=4, description="Ratio of neighbouring embedding frequencies")
    levels: int = Field(40, ge=1, le=128, description="Embedding frequencies an axis")
    steps: Steps = Field(68_600, description="Optimisation steps in all")
    kernel_batch: int = Field(
        4096, ge=1, le=1_048_576, description="Kernels a step through which the gradient of all losses flows"
    )
    image_batch: int = Field(256, ge=1, le=4096, description="Images a step of distillation")
    learning_rate: LearningRate = Field(5e-3, description="Peak learning rate")
    feature_map_weight: Weight = Field(1e-4, description="Weight of L_fmd beside L_rec (alpha)")
    logit_weight: Weight = Field(1e-4, description="Weight of L_kd beside L_rec (beta)")
    weight_decay: float = Field(1e-3, ge=0, le=1, description="Decoupled weight decay")
    magnitude_probability: float = Field(
        0.2, ge=0, le=1, description="Fraction of the kernel batches that are drawn in proportion to the kernels' norms"
    )

    @property
    def distils(self) -> bool:
        """See `TrainingConfig`."""
        return super().distils and self.feature_map_weight + self.logit_weight > 0

    def _most_steps(self) -> int:
        if "steps" in self.model_fields_set:
            return self.steps
        return max(self.steps, *(int(published.get("steps", 0)) for published in PUBLISHED.values()))

    def resolve(self, layers: Sequence[Layer], *, distil: bool, architecture: str | None = None) -> Self:
        """See `TrainingConfig`; what is not said is what was published for the architecture, but not how many of other
        `steps` go without distillation.
        """
        said = self.model_fields_set | ({"reconstruction_steps"} if "steps" in self.model_fields_set else set())
        published = PUBLISHED.get(architecture or "", {})
        config = self.model_copy(update={name: value for name, value in published.items() if name not in said})
        if (config.reconstruction_steps or 0) > config.steps:
            raise ValueError("reconstruction_steps must not exceed steps")
        return super(PaperConfig, config).resolve(layers, distil=distil)


Config = DecoupledConfig | RegularisedConfig | PaperConfig

CONFIGS: dict[str, type[Config]] = {"decoupled": DecoupledConfig, "regularised": RegularisedConfig, "paper": PaperConfig}


def read_config(values: Mapping[str, Any]) -> Config:
    """A configuration as `model_dump` wrote it, or a part of one; the recipe is "decoupled" if it is not said.

    Raises ValueError.
    """
    recipe = values.get("recipe") or "decoupled"
    if not isinstance(recipe, str) or recipe not in CONFIGS:
        raise ValueError(f"there is no recipe {recipe!r}; there are {', '.join(CONFIGS)}")
    return CONFIGS[recipe](**values)
