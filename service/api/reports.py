"""What a worker tells about a job and its predictor: types for JSON that is answered as it was stored.

Keys that a type does not name are answered too, and keys that are absent stay absent. docs/report.md explains the report.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from service.store.failures import FAILURES
from service.store.job_states import State

as_stored = with_config(ConfigDict(extra="allow"))


@as_stored
class Progress(TypedDict):
    """Where a job stands, counted over all its phases."""

    phase: Annotated[str, Field(description="synthesis, smoothing, reconstruction, distillation, compression or importance")]
    step: Annotated[int, Field(description="Steps made")]
    steps: Annotated[int, Field(description="Steps in all")]
    fraction: Annotated[float, Field(description="Of the steps, those made")]
    steps_per_second: float | None


@as_stored
class Metrics(TypedDict, total=False):
    """The latest loss of each kind, and the latest evaluation on the held-out set. Null: not finite, or without labels."""

    statistics: Annotated[float, Field(description="Loss of the synthesis: distance from the statistics of the batch norms")]
    classes: Annotated[float, Field(description="Loss of the synthesis: cross-entropy of the classes")]
    smoothness: Annotated[float, Field(description="Sum of the cosines of neighbouring kernels")]
    reconstruction: Annotated[float, Field(description="Loss: error of the weights")]
    feature_maps: Annotated[float, Field(description="Loss: distance from the teacher's feature maps")]
    distillation: Annotated[float, Field(description="Loss: divergence from the teacher's outputs")]
    evaluated_at_step: Annotated[int, Field(description="Step of the evaluation that the following fields come from")]
    relative_error: Annotated[float | None, Field(description="Norm of the error over norm of the weights")]
    images: Annotated[int, Field(description="Inputs of the held-out set")]
    agreement: Annotated[float, Field(description="Fraction of the inputs that both networks classify alike")]
    divergence: Annotated[float | None, Field(description="Mean KL(original || rebuilt) of the outputs, in nats")]
    original_accuracy: Annotated[float | None, Field(description="Fraction that the original network classifies as labelled")]
    accuracy: Annotated[float | None, Field(description="Fraction that the rebuilt network classifies as labelled")]


@as_stored
class JobError(TypedDict):
    """Why a job failed; `type` is stable, `detail` is for people."""

    # Rows of any release are shown as they were written, so the type is not validated.
    type: Annotated[
        str,
        Field(
            description=" ".join(f"`{type}`: {failure.meaning}" for type, failure in FAILURES.items()),
            json_schema_extra={"enum": list(FAILURES)},
        ),
    ]
    detail: str


@as_stored
class Accuracy(TypedDict):
    """Fractions of the held-out set classified as labelled; null without labels."""

    original: float | None
    reconstructed: float | None


@as_stored
class LayerError(TypedDict):
    """Norm of the error over norm of the weights of one layer; of a layer of zeros, the norm of the error."""

    index: int
    name: str
    relative_error: float | None


@as_stored
class RelativeError(TypedDict):
    """Norm of the error over norm of the weights: of all represented layers together, and of each."""

    overall: float | None
    layers: list[LayerError]


@as_stored
class Bytes(TypedDict):
    """Bytes of the artefact's parts, and of what they stand for."""

    predictor: int
    permutation: int
    kept: int
    total: Annotated[int, Field(description="The whole artefact, with its header")]
    represented: Annotated[int, Field(description="The weights that the predictor and the permutation stand for")]
    original: Annotated[int, Field(description="All tensors of the checkpoint")]


@as_stored
class Trial(TypedDict):
    """One training of the search for a size. `hidden` and `drop` are null if the training diverged."""

    ratio: float
    hidden: int | None
    drop: Annotated[float | None, Field(description="Lost accuracy, in points of a percent")]
    seconds: float


@as_stored
class Target(TypedDict):
    """The search for the smallest predictor that meets an accuracy target."""

    drop: Annotated[float, Field(description="Accuracy that may be lost, in points of a percent")]
    met: bool
    sizes: list[Trial]


@as_stored
class Compression(TypedDict):
    """How the predictor's weights are stored."""

    bits: int
    sparsity: float


@as_stored
class Importance(TypedDict):
    """Accuracy after setting fractions of the original weights to zero, by part (weight, kernel, filter) and score."""

    metric: Literal["accuracy", "agreement"]
    fractions: list[float]
    curves: Annotated[dict[str, dict[str, list[float]]], Field(description="A value for each fraction, by part and score")]


@as_stored
class Evaluated(TypedDict):
    """One evaluation on the held-out set; the step is counted over all phases."""

    step: int
    relative_error: float | None
    accuracy: float | None
    agreement: float | None
    divergence: float | None


@as_stored
class Seconds(TypedDict):
    """Times on the worker; rendering is one rebuild of the whole network."""

    training: float
    rendering: float


@as_stored
class Report(TypedDict):
    """What a predictor keeps and what it loses, measured on the network that was rebuilt from the artefact."""

    distilled: Annotated[bool, Field(description="Whether the original network was the predictor's teacher")]
    images: Annotated[int | None, Field(description="Inputs of the held-out set; null if only weights were reconstructed")]
    accuracy: Accuracy
    agreement: Annotated[float | None, Field(description="Fraction of the inputs that both networks classify alike")]
    divergence: Annotated[float | None, Field(description="Mean KL(original || rebuilt) of the outputs, in nats")]
    relative_error: RelativeError
    bytes: Bytes
    parameters: Annotated[int, Field(description="Of the predictor")]
    target: Target | None
    compression: Compression
    importance: Importance | None
    best: Annotated[Evaluated, Field(description="The evaluation that was chosen")]
    last: Evaluated
    seconds: Seconds


@as_stored
class StateChange(TypedDict):
    """What became of a job. `error` is there if the job failed, `predictor_id` if it succeeded."""

    state: State
    error: NotRequired[JobError]
    predictor_id: NotRequired[str]
