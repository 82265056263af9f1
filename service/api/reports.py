"""Types of the JSON that a worker stores about a job and its predictor, and that the API answers as it was stored.

The answer also has keys that a type does not name, and lacks the keys that were not stored. docs/report.md explains the report.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from service.store.failures import FAILURES
from service.store.job_states import State

as_stored = with_config(ConfigDict(extra="allow"))


@as_stored
class Progress(TypedDict):
    """How far a job is. Steps are counted over all phases, and over all trials of a search for a size."""

    phase: Annotated[
        str,
        Field(description="The current phase: synthesis, smoothing, reconstruction, distillation, compression or importance"),
    ]
    step: Annotated[int, Field(description="Number of steps that were made")]
    steps: Annotated[int, Field(description="Number of steps in total")]
    fraction: Annotated[float, Field(description="`step` divided by `steps`")]
    steps_per_second: Annotated[float | None, Field(description="Speed in the current phase")]


@as_stored
class Accuracy(TypedDict):
    """Fractions of the held-out inputs that are classified correctly. Null without labels."""

    original: Annotated[float | None, Field(description="By the original network")]
    reconstructed: Annotated[float | None, Field(description="By the rebuilt network")]


@as_stored
class TargetError(TypedDict):
    """The error of an output with respect to the floating-point labels of the dataset."""

    mse: Annotated[float | None, Field(description="Mean squared error. Null if it is not finite")]
    psnr: Annotated[
        float | None,
        Field(description="Peak signal-to-noise ratio of a dense output in dB; its peak is the range of the labels"),
    ]


@as_stored
class Quality(TypedDict):
    """The errors of an output with respect to the floating-point labels of the dataset. Null without such labels."""

    original: Annotated[TargetError | None, Field(description="Of the original network")]
    reconstructed: Annotated[TargetError | None, Field(description="Of the rebuilt network")]


@as_stored
class OutputFigures(TypedDict):
    """One output of both networks on the held-out set, compared. Figures that do not apply are null."""

    name: Annotated[str, Field(description="Name of the output")]
    objective: Annotated[
        Literal["classes", "values"], Field(description="What the output holds: classes along axis 1, or values")
    ]
    relative_error: Annotated[
        float | None,
        Field(description="Root mean square of the difference, divided by the spread of the original network's output"),
    ]
    psnr: Annotated[
        float | None,
        Field(
            description="Peak signal-to-noise ratio between the two networks, in dB, for a dense output that holds values; the "
            "peak is the range of the original network's output"
        ),
    ]
    agreement: Annotated[float | None, Field(description="Fraction of the positions with the same class in both networks")]
    divergence: Annotated[float | None, Field(description="Mean KL(original || rebuilt) of the classes, in nats")]
    accuracy: Accuracy
    quality: Quality


@as_stored
class Metrics(TypedDict, total=False):
    """The latest value of each loss, and the latest evaluation on the held-out set.

    Losses of phases that the job does not have are absent. An accuracy is null without labels. Other values are null if they
    are not finite.
    """

    statistics: Annotated[
        float, Field(description="Loss of the synthesis phase: distance from the statistics in the batch norms of the network")
    ]
    classes: Annotated[float, Field(description="Loss of the synthesis phase: cross-entropy of the classes of the images")]
    smoothness: Annotated[float, Field(description="Smoothness of the weights: sum of the cosines of neighbouring kernels")]
    reconstruction: Annotated[float, Field(description="Reconstruction loss: error of the predicted weights")]
    feature_maps: Annotated[float, Field(description="Feature map loss: distance from the feature maps of the teacher")]
    distillation: Annotated[float, Field(description="Distillation loss: divergence from the outputs of the teacher")]
    evaluated_at_step: Annotated[int, Field(description="Step of the latest evaluation. The following fields are its results")]
    relative_error: Annotated[
        float | None, Field(description="Norm of the error of the weights, divided by the norm of the weights")
    ]
    images: Annotated[int, Field(description="Number of inputs in the held-out set")]
    agreement: Annotated[
        float | None,
        Field(description="Fraction of the held-out inputs to which both networks give the same class; null without classes"),
    ]
    divergence: Annotated[
        float | None, Field(description="Mean Kullback-Leibler divergence KL(original || rebuilt) of the outputs, in nats")
    ]
    original_accuracy: Annotated[
        float | None, Field(description="Fraction of the held-out images that the original network classifies correctly")
    ]
    accuracy: Annotated[
        float | None, Field(description="Fraction of the held-out images that the rebuilt network classifies correctly")
    ]
    outputs: NotRequired[Annotated[list[OutputFigures], Field(description="The figures of each output that is not ignored")]]


@as_stored
class JobError(TypedDict):
    """Why a job failed. Programs can rely on `type`. `detail` is a sentence for people."""

    # The row of a job may come from another release and have another type, so the type is documented but not validated.
    type: Annotated[
        str,
        Field(
            description=" ".join(f"`{type}`: {failure.meaning}" for type, failure in FAILURES.items()),
            json_schema_extra={"enum": list(FAILURES)},
        ),
    ]
    detail: str


@as_stored
class LayerError(TypedDict):
    """The error of one layer."""

    index: Annotated[int, Field(description="Index of the layer among the represented layers")]
    name: Annotated[str, Field(description="Name of the tensor in the state_dict")]
    relative_error: Annotated[
        float | None,
        Field(
            description="Norm of the error, divided by the norm of the layer's weights. If all weights are 0: the norm of the "
            "error. Null if it is not finite"
        ),
    ]


@as_stored
class RelativeError(TypedDict):
    """The error of the rebuilt weights: the norm of the error, divided by the norm of the original weights."""

    overall: Annotated[float | None, Field(description="Of all represented layers together. Null if it is not finite")]
    layers: Annotated[list[LayerError], Field(description="Of each represented layer")]


@as_stored
class Bytes(TypedDict):
    """Sizes in bytes: of the artefact and its parts, and of the tensors of the checkpoint."""

    predictor: Annotated[int, Field(description="The weights of the predictor, as stored in the artefact")]
    permutation: Annotated[int, Field(description="The permutations, as stored in the artefact")]
    kept: Annotated[int, Field(description="The kept tensors, as stored in the artefact")]
    graph: NotRequired[Annotated[int, Field(description="The ONNX file without its tensors, if the network is a graph")]]
    total: Annotated[int, Field(description="The whole artefact, its header included")]
    represented: Annotated[int, Field(description="The original weights that predictor and permutations represent")]
    original: Annotated[int, Field(description="All tensors of the checkpoint")]


@as_stored
class Trial(TypedDict):
    """One training of a search for the smallest predictor. `hidden` and `drop` are null if the training diverged."""

    ratio: Annotated[float, Field(description="Parameters of the predictor for each represented weight")]
    hidden: Annotated[int | None, Field(description="Width of the predictor")]
    drop: Annotated[float | None, Field(description="Accuracy that was lost, in percentage points")]
    seconds: Annotated[float, Field(description="Duration of the training")]


@as_stored
class Target(TypedDict):
    """The result of a search for the smallest predictor that meets an accuracy target."""

    drop: Annotated[float, Field(description="Accuracy that may be lost, in percentage points")]
    met: Annotated[bool, Field(description="Whether a trial met the target")]
    sizes: Annotated[list[Trial], Field(description="The trials")]


@as_stored
class Compression(TypedDict):
    """How the weights of the predictor are stored."""

    bits: Annotated[int, Field(description="Bits of a weight; 32 and 16 are floating point")]
    sparsity: Annotated[float, Field(description="Fraction of the weights that are 0")]


@as_stored
class Importance(TypedDict):
    """How well the original network works when fractions of its represented weights are set to zero."""

    metric: Annotated[
        Literal["accuracy", "agreement", "output_error"],
        Field(
            description="What is measured: accuracy; without labels the agreement with the original network; or the error of "
            "outputs that hold values"
        ),
    ]
    fractions: Annotated[list[float], Field(description="Fractions of the weights that are set to zero")]
    curves: Annotated[
        dict[str, dict[str, list[float]]],
        Field(
            description="Values of the metric, one for each fraction: by part (weight, kernel, filter), then by the score "
            "that chooses the parts (relative error, absolute error, magnitude, random)"
        ),
    ]


@as_stored
class Evaluated(TypedDict):
    """One evaluation on the held-out set. Without a held-out set, only the relative error is measured."""

    step: Annotated[int, Field(description="Step of the evaluation, counted over all phases")]
    relative_error: Annotated[
        float | None, Field(description="Norm of the error of the weights, divided by the norm of the weights")
    ]
    accuracy: Annotated[float | None, Field(description="Fraction of the held-out images that are classified correctly")]
    agreement: Annotated[
        float | None, Field(description="Fraction of the held-out inputs to which both networks give the same class")
    ]
    divergence: Annotated[
        float | None, Field(description="Mean Kullback-Leibler divergence KL(original || rebuilt) of the outputs, in nats")
    ]
    outputs: NotRequired[Annotated[list[OutputFigures], Field(description="The figures of each output that is not ignored")]]


@as_stored
class Seconds(TypedDict):
    """Durations on the worker, in seconds."""

    training: Annotated[float, Field(description="All steps of the training, or all trainings of a search for a size")]
    rendering: Annotated[float, Field(description="Rebuilding the whole network once from the artefact")]


@as_stored
class Report(TypedDict):
    """How well a predictor represents the original network, measured on the network that is rebuilt from the artefact."""

    distilled: Annotated[
        bool,
        Field(description="Whether the original network was a teacher; if not, only its weights were reconstructed"),
    ]
    images: Annotated[
        int | None, Field(description="Number of inputs in the held-out set; null without data or without an architecture")
    ]
    accuracy: Accuracy
    agreement: Annotated[
        float | None, Field(description="Fraction of the held-out inputs to which both networks give the same class")
    ]
    divergence: Annotated[
        float | None, Field(description="Mean Kullback-Leibler divergence KL(original || rebuilt) of the outputs, in nats")
    ]
    outputs: NotRequired[
        Annotated[
            list[OutputFigures],
            Field(description="The figures of each output that is not ignored; empty if nothing was compared"),
        ]
    ]
    relative_error: RelativeError
    bytes: Bytes
    parameters: Annotated[int, Field(description="Number of parameters of the predictor")]
    target: Annotated[Target | None, Field(description="Null unless the job had an accuracy target")]
    compression: Compression
    importance: Annotated[Importance | None, Field(description="Null unless the job asked for it")]
    best: Annotated[
        Evaluated,
        Field(
            description="The evaluation of the predictor that was stored: the one with the least divergence of classes and "
            "relative error of values, or without a held-out set the one with the least relative error of the weights"
        ),
    ]
    last: Annotated[Evaluated, Field(description="The last evaluation")]
    seconds: Seconds


@as_stored
class StateChange(TypedDict):
    """A change of a job's state."""

    state: Annotated[State, Field(description="The new state")]
    error: NotRequired[Annotated[JobError, Field(description="Why the job failed; absent otherwise")]]
    predictor_id: NotRequired[Annotated[str, Field(description="The new predictor, if the job succeeded; absent otherwise")]]
    reason: NotRequired[
        Annotated[str, Field(description="Why the job has returned to the queue, if its worker has failed or was killed")]
    ]


@as_stored
class RefusedSnapshot(TypedDict):
    """A snapshot from which the training could not go on."""

    step: Annotated[int, Field(description="The step after which the snapshot was taken")]
    reason: Annotated[str, Field(description="Why it was refused")]


@as_stored
class Resumption(TypedDict):
    """Where an attempt takes up the training of the attempt before."""

    step: Annotated[
        int, Field(description="The training goes on after this step. 0: it begins anew, as no snapshot could be used")
    ]
    refused: Annotated[list[RefusedSnapshot], Field(description="The snapshots that could not be used, newest first")]
