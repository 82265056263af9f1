"""Every option of a training, once: its type, its range and what it means. Each recipe adds its own default.

Options are grouped by the component that they configure.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

# The widest predictor. One matrix of such a predictor has 16 million weights.
MAX_HIDDEN = 4096

# The highest embedding frequency in units of the lowest. Beyond it, the last bit of a power changes the features of the
# thousandth channel so much that two kinds of processor would rebuild different weights.
MAX_FREQUENCY_RANGE = 2.0**20

MAX_STEPS = 10_000_000

# The size of a predictor whose request gives neither hidden, ratio nor target.
DEFAULT_RATIO = 0.4

# Vocabularies that the method shares with its callers.
SmallKernels = Literal["tiled", "cropped"]
PermutationKind = Literal["cross-filter", "in-filter", "none"]
PathKind = Literal["fragments", "nearest"]
ActivationKind = Literal["relu", "silu"]
NoiseKind = Literal["uniform", "normal", "matched"]

# Which weights are represented, and as what tiles.
Layers = Annotated[
    Literal["all", "paper"] | Annotated[list[str], Field(min_length=1, fail_fast=True)],
    Field(
        description="Which weights to represent: all convolutions, the convolutions that the authors of NeRN represent, "
        "or a list of names, which may include linear layers"
    ),
]
SmallKernelOption = Annotated[
    SmallKernels,
    Field(
        description="How kernels of fewer than nine weights are predicted. tiled: several channels at a time, by a head of "
        "their own. cropped: one by one, as the centre of a prediction of the largest kernel size"
    ),
]

# The permutation.
Permutation = Annotated[PermutationKind, Field(description="Which tiles become neighbours, so that predictions are smooth")]
Path = Annotated[
    PathKind,
    Field(
        description="How the order of the tiles is found. fragments: the most similar pairs are joined first. "
        "nearest: from each tile to the most similar one left, as published"
    ),
]

# The predictor.
Hidden = Annotated[int | None, Field(ge=1, le=MAX_HIDDEN, description="Width of the predictor; excludes ratio")]
Ratio = Annotated[
    float | None,
    Field(
        gt=0,
        le=4,
        description=f"Parameters of the predictor for each represented weight; {DEFAULT_RATIO} if hidden is null too",
    ),
]
Depth = Annotated[int, Field(ge=2, le=32, description="Linear layers of the predictor, the head included")]
Activation = Annotated[ActivationKind, Field(description="Activation function between the linear layers")]
LayerScaling = Annotated[
    float | None,
    Field(
        ge=0,
        le=1,
        description="Unit of a layer's predictions. 0: the root mean square of all weights. 1: that of the layer's weights. "
        "Between: the weighted geometric mean of both. Without it, predictions are the weights themselves",
    ),
]

# The embedding of a coordinate.
Base = Annotated[float, Field(gt=0, le=4, description="Ratio of neighbouring embedding frequencies")]
Levels = Annotated[int, Field(ge=1, le=128, description="Embedding frequencies for each axis of the coordinate")]
LayerFeatures = Annotated[
    int, Field(ge=0, le=256, description="Learned features of each layer, in place of frequencies; 0: frequencies")
]

# The size, found by a search.


class AccuracyTarget(BaseModel):
    """How much accuracy the predictor may lose."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    drop: float = Field(gt=0, le=100, description="Points of accuracy (percent) on the held-out set")


Target = Annotated[
    AccuracyTarget | None,
    Field(description="Accuracy to meet: the smallest of seven sizes is found with three trainings; excludes hidden and ratio"),
]

# Steps and batches.
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS, description="Optimizer steps of all phases but synthesis and smoothing")]
ReconstructionSteps = Annotated[
    int | None,
    Field(
        ge=0,
        le=MAX_STEPS,
        description="Steps at the start that fit the weights and do not distil. Default: five sixths of the steps that do not "
        "compress; in the paper recipe none, or the published number for the network",
    ),
]
KernelBatch = Annotated[
    int,
    Field(
        ge=1,
        le=2**20,
        description="Tiles of a step of reconstruction; in the paper recipe, tiles through which all gradients flow",
    ),
]
ImageBatch = Annotated[int, Field(ge=1, le=4096, description="Images of a step of distillation")]

# Learning rates and loss weights.
LearningRate = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="Peak learning rate of the reconstruction phase. The first half of the compression phase uses it too, "
        "multiplied by min(1, e / 0.3)², where e is the relative error that the quantisation introduced",
    ),
]
DistillationLearningRate = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="Peak learning rate of the distillation phase and of the second half of the compression phase. It is "
        "multiplied by min(1, e / 0.3)², where e is the relative error of the weights when the phase begins",
    ),
]
FeatureMapWeight = Annotated[float, Field(ge=0, le=1e6, description="Weight of the feature map distillation loss (alpha)")]
LogitWeight = Annotated[float, Field(ge=0, le=1e6, description="Weight of the knowledge distillation loss (beta)")]
WeightDecay = Annotated[float, Field(ge=0, le=1, description="Decoupled weight decay")]
MagnitudeProbability = Annotated[
    float, Field(ge=0, le=1, description="Fraction of the steps whose tiles are drawn in proportion to their norms")
]

# Quantisation-aware training of the predictor.
Bits = Annotated[
    Literal[2, 3, 4, 5, 6, 7, 8, 16, 32],
    Field(description="Bits of a predictor's weight. 32 and 16: floating point. 2 to 8: learned scales and entropy coding"),
]
Sparsity = Annotated[
    float, Field(ge=0, le=0.95, description="Fraction of the predictor's weights to set to zero; needs at most 8 bits")
]
CompressionSteps = Annotated[
    int | None,
    Field(
        ge=0,
        le=MAX_STEPS,
        description="Steps at the end that train the quantised predictor. The first half fits its predictions to those from "
        "before the quantisation, the second half distils. Default: with at most 8 bits a sixth of all steps, else none",
    ),
]

# Fine-tuning of the original network for smoothness.
SmoothingSteps = Annotated[int, Field(ge=1, le=MAX_STEPS, description="Steps of fine-tuning, before all other phases")]
SmoothingWeight = Annotated[
    float, Field(ge=0, le=1e6, description="Weight of the summed cosines of neighbouring tiles (lambda)")
]
SmoothingLearningRate = Annotated[float, Field(gt=0, le=1, description="Peak learning rate of the fine-tuning")]

# Data.
Augment = Annotated[bool, Field(description="Mirror the images at random and shift them by up to an eighth of their size")]
HeldOut = Annotated[
    float,
    Field(gt=0, le=0.5, description="Fraction of the dataset, at most 2,000 images, for model selection and the report"),
]
SynthesisedImages = Annotated[
    int, Field(ge=1, le=1_000_000, description="Images to make if the data is matched noise, besides the held-out set")
]
SynthesisSteps = Annotated[int, Field(ge=1, le=100_000, description="Steps for each group of at most 128 such images")]
SynthesisLearningRate = Annotated[float, Field(gt=0, le=1, description="Peak learning rate of these steps")]

# The rest.
Importance = Annotated[
    bool, Field(description="Measure which weights matter, by pruning the original network, as a part of the report")
]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1, description="Seed of everything random but the search for paths")]
