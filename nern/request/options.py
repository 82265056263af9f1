"""The options of a training. Each has its type, its range and its description here. Each recipe adds its own default.

Options are grouped by the component that they configure. Clients read the descriptions in docs/training.md and in the OpenAPI
document.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

# The widest predictor. One matrix of such a predictor has 16 million weights.
MAX_HIDDEN = 4096

# The largest ratio of the highest embedding frequency to the lowest. With a larger ratio, a rounding error in the last bit of a
# frequency changes the features of the thousandth channel so much that two kinds of processors would render different weights.
MAX_FREQUENCY_RANGE = 2.0**20

MAX_STEPS = 10_000_000

# The ratio of a request that gives neither hidden nor ratio nor target.
DEFAULT_RATIO = 0.4

# Values of options that other modules also name.
SmallKernels = Literal["tiled", "cropped"]
PermutationKind = Literal["cross-filter", "in-filter", "none"]
PathKind = Literal["fragments", "nearest"]
ActivationKind = Literal["relu", "silu"]
NoiseKind = Literal["uniform", "normal", "matched"]
ObjectiveKind = Literal["classes", "values", "ignore"]

# The represented layers and their tiles.
Layers = Annotated[
    Literal["all", "paper", "everything"] | Annotated[list[str], Field(min_length=1, fail_fast=True)],
    Field(
        description="Layers to represent. all: all convolutions. paper: the convolutions that the authors of NeRN represent. "
        "everything: all convolutions, linear layers and tables of embeddings. A list has the names of the weights, which may "
        "be those of linear layers."
    ),
]
SmallKernelOption = Annotated[
    SmallKernels,
    Field(
        description="How kernels of fewer than nine weights are predicted. tiled: a head of their own predicts several kernels "
        "of one filter together. cropped: each kernel is the centre of a prediction of the largest kernel size, as published."
    ),
]

# The permutation.
Permutation = Annotated[
    PermutationKind,
    Field(
        description="How the coordinates of tiles are permuted, so that neighbouring tiles are similar. cross-filter: among "
        "all tiles of a layer. in-filter: among the tiles of each filter, and among the filters. none: not at all."
    ),
]
Path = Annotated[
    PathKind,
    Field(
        description="How to find the path that the permutation follows. fragments: the most similar tiles are joined first. "
        "nearest: each tile is followed by the most similar tile that is left, as published."
    ),
]

# The predictor.
Hidden = Annotated[
    int | None,
    Field(
        ge=1,
        le=MAX_HIDDEN,
        description="Width of the predictor: the number of outputs of each linear layer but the head. Default: the width that "
        "follows from `ratio`. It excludes `ratio` and `target`.",
    ),
]
Ratio = Annotated[
    float | None,
    Field(
        gt=0,
        le=4,
        description="Size of the predictor: its parameters divided by the number of represented weights. The predictor is the "
        "widest one that has at most so many parameters, but has at least width 1. It excludes `hidden` and `target`; without "
        f"all three, it is {DEFAULT_RATIO}.",
    ),
]
Depth = Annotated[int, Field(ge=2, le=32, description="Number of linear layers of the predictor, the head included.")]
Activation = Annotated[ActivationKind, Field(description="Activation function between the linear layers of the predictor.")]
LayerScaling = Annotated[
    float | None,
    Field(
        ge=0,
        le=1,
        description="Exponent s of the layer scales. The predictions for a layer are multiplied by r^(1-s) · r_l^s, where r is "
        "the root mean square of all represented weights, and r_l that of the layer's weights. In the paper recipe, "
        "all layer scales are 1 by default.",
    ),
]

# The embedding of a coordinate.
Base = Annotated[float, Field(gt=0, le=4, description="Ratio of each frequency of the embedding to the frequency before it.")]
Levels = Annotated[
    int,
    Field(
        ge=1,
        le=128,
        description="Number of frequencies of the embedding, for each axis of the coordinate. `base` to the power of "
        f"`levels` - 1 must not exceed {MAX_FREQUENCY_RANGE:,.0f}.",
    ),
]
LayerFeatures = Annotated[
    int,
    Field(
        ge=0,
        le=256,
        description="Number of learned features for each layer. 0: the layer is embedded by frequencies, like the other axes "
        "of the coordinate.",
    ),
]

# The search for a size.


class AccuracyTarget(BaseModel):
    """The accuracy that the rebuilt network may lose."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    drop: float = Field(gt=0, le=100, description="Largest loss of accuracy on the held-out set, in percentage points.")


Target = Annotated[
    AccuracyTarget | None,
    Field(
        description="Accuracy target. The search makes three trainings and finds the smallest of seven sizes of predictor that "
        "loses at most `drop` percentage points of accuracy. It needs labels. It excludes `hidden` and `ratio`."
    ),
]

# Steps and batches.
Steps = Annotated[
    int, Field(ge=1, le=MAX_STEPS, description="Number of steps of all phases together, without synthesis and smoothing.")
]
ReconstructionSteps = Annotated[
    int | None,
    Field(
        ge=0,
        le=MAX_STEPS,
        description="Number of steps of the reconstruction phase, which needs no images. Default: five sixths of the steps "
        "that are not `compression_steps`; in the paper recipe 0, or the number that was published for the architecture. "
        "Without a teacher, the phase also has the steps of the distillation phase.",
    ),
]
KernelBatch = Annotated[
    int,
    Field(
        ge=1,
        le=2**20,
        description="Number of tiles in a step of the reconstruction phase and of the first half of the compression phase. In "
        "the paper recipe, the number of tiles in every step; the gradients of all losses flow through these tiles.",
    ),
]
ImageBatch = Annotated[
    int,
    Field(
        ge=1,
        le=4096,
        description="Number of images in a step of the smoothing phase, of the distillation phase and of the second half of "
        "the compression phase.",
    ),
]

# Learning rates and loss weights.
LearningRate = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="Peak learning rate of the reconstruction phase. The first half of the compression phase uses it too, "
        "multiplied by min(1, e / 0.3)², where e is the relative error that quantisation introduced. In the paper recipe, "
        "this is the peak learning rate of the whole training.",
    ),
]
DistillationLearningRate = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="Peak learning rate of the distillation phase and of the second half of the compression phase. In both, it "
        "is multiplied by min(1, e / 0.3)², where e is the relative error of the rebuilt weights before the first step.",
    ),
]
FeatureMapWeight = Annotated[
    float,
    Field(
        ge=0,
        le=1e6,
        description="Weight alpha of the feature map loss. The weight 1 belongs to the reconstruction loss in the paper "
        "recipe, and to the distillation loss in the other recipes.",
    ),
]
LogitWeight = Annotated[
    float, Field(ge=0, le=1e6, description="Weight beta of the distillation loss. The reconstruction loss has the weight 1.")
]
WeightDecay = Annotated[float, Field(ge=0, le=1, description="Coefficient of decoupled weight decay.")]
MagnitudeProbability = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="Probability that the tiles of a step are drawn in proportion to their norms. The tiles of other steps are "
        "drawn uniformly.",
    ),
]

# Quantisation-aware training of the predictor.
Bits = Annotated[
    Literal[2, 3, 4, 5, 6, 7, 8, 16, 32],
    Field(
        description="Number of bits of each weight of the stored predictor. 32 and 16: floating point. 2 to 8: integer codes "
        "with learned scales, from quantisation-aware training; the codes are entropy coded, and the first layer has more bits."
    ),
]
Sparsity = Annotated[
    float,
    Field(
        ge=0,
        le=0.95,
        description="Fraction of the weights in each linear layer of the predictor that are set to 0, the smallest ones. It "
        "needs `bits` of at most 8.",
    ),
]
CompressionSteps = Annotated[
    int | None,
    Field(
        ge=0,
        le=MAX_STEPS,
        description="Number of steps of the compression phase, the last one, which is quantisation-aware training. The first "
        "half fits the quantised predictor to the predictions before quantisation. The second half distils; without a teacher, "
        "it goes on with the fit. Default: a sixth of `steps` if `bits` is at most 8, otherwise 0.",
    ),
]

# Fine-tuning of the original network for smoothness.
SmoothingSteps = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_STEPS,
        description="Number of steps of the smoothing phase, which fine-tunes the original network before the reconstruction.",
    ),
]
SmoothingWeight = Annotated[
    float,
    Field(
        ge=0,
        le=1e6,
        description="Weight lambda of the sum of the cosines of neighbouring tiles in the smoothing phase. The distillation "
        "loss has the weight 1.",
    ),
]
SmoothingLearningRate = Annotated[float, Field(gt=0, le=1, description="Peak learning rate of the smoothing phase.")]

# The outputs.
ObjectiveChoice: TypeAlias = Literal["classes", "values"] | dict[str, ObjectiveKind] | None
ObjectiveOption = Annotated[
    ObjectiveChoice,
    Field(
        description="What the outputs of the network hold. classes: classes along axis 1; the loss is the divergence. values: "
        "numbers that matter themselves; the loss is the squared error relative to the spread of the teacher's outputs. An "
        "object gives classes, values or ignore for each output by name. Default: an output holds classes if a softmax over "
        "axis 1 is its last operation, if labels of the dataset number its classes, or if the architecture is one of a "
        "classifier or segmenter; otherwise values. Outputs of integers are ignored."
    ),
]

# Data.
Augment = Annotated[
    bool,
    Field(
        description="Whether the images of a dataset or of matched noise are mirrored at random and shifted at random by up to "
        "an eighth of their height and width."
    ),
]
HeldOut = Annotated[
    float,
    Field(
        gt=0,
        le=0.5,
        description="Fraction of the dataset in the held-out set, which serves for model selection and for the report. The "
        "held-out set has at most 2,000 images.",
    ),
]
SynthesisedImages = Annotated[
    int,
    Field(
        ge=1,
        le=1_000_000,
        description="Number of images to synthesise for the training if the data is matched noise. The held-out set has at "
        "least 128 further images.",
    ),
]
SynthesisSteps = Annotated[
    int,
    Field(
        ge=1,
        le=100_000,
        description="Number of steps of the synthesis for each group of images. A group has at most 128 images.",
    ),
]
SynthesisLearningRate = Annotated[float, Field(gt=0, le=1, description="Peak learning rate of the synthesis, for each group.")]

# The report, and random numbers.
Importance = Annotated[
    bool,
    Field(
        description="Whether the report says which weights are important. To find out, parts of the original network are "
        "pruned, and the accuracy is measured. Without a teacher, the option has no effect."
    ),
]
Seed = Annotated[
    int,
    Field(
        ge=0,
        le=2**63 - 1,
        description="Seed of all random numbers, except those of the search for paths, which are always the same.",
    ),
]
