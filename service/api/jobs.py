"""Jobs: trainings of predictors."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import torch
from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

import nern.errors
from nern import architectures, tensorfile
from nern.images import NoiseKind
from nern.layers import StateDict
from nern.training import DecoupledConfig, PaperConfig, RegularisedConfig, choose_layers, read_config
from service import problems
from service.api import checkpoints, datasets, fitting
from service.api.bodies import require_json
from service.api.context import Context, Ctx, Reading, Writing
from service.api.lists import Cursor, Limit, ListOf, opaque, page_arguments
from service.store import jobs
from service.store.failures import FAILURES
from service.store.ids import new_id
from service.store.job_states import State
from service.store.tables import Checkpoint, Dataset, Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class DatasetSource(BaseModel):
    """Images that were uploaded."""

    model_config = ConfigDict(extra="forbid")

    dataset_id: str


class NoiseSource(BaseModel):
    """Random images: uniform in [-1, 1], standard normal, or matched to what the network's batch norms remember."""

    model_config = ConfigDict(extra="forbid")

    noise: NoiseKind


def _source(data: Any) -> str:
    noise = isinstance(data, NoiseSource) or (isinstance(data, Mapping) and "noise" in data)
    return "noise source" if noise else "dataset source"


Source = Annotated[
    Annotated[DatasetSource, Tag("dataset source")] | Annotated[NoiseSource, Tag("noise source")],
    Discriminator(_source),
]


class JobInputs(BaseModel):
    """What is trained, on which data."""

    checkpoint_id: str
    architecture: str | None = Field(None, description="Name of the network; default: as recognised in the checkpoint")
    data: Source | None = Field(None, description="Images to distil from; none: reconstruction only")


class DecoupledJob(JobInputs, DecoupledConfig):
    """Reconstruction of the weights first, then distillation of the logits; the default."""


class RegularisedJob(JobInputs, RegularisedConfig):
    """The network is fine-tuned first, so that neighbouring kernels are similar; then as "decoupled"."""


class PaperJob(JobInputs, PaperConfig):
    """The published recipe."""


def _recipe(body: Any) -> str:
    return str((body.get("recipe") if isinstance(body, Mapping) else None) or "decoupled")


AnyJob = DecoupledJob | RegularisedJob | PaperJob

JobIn = Annotated[
    Annotated[DecoupledJob, Tag("decoupled")]
    | Annotated[RegularisedJob, Tag("regularised")]
    | Annotated[PaperJob, Tag("paper")],
    Discriminator(
        _recipe, custom_error_type="recipe", custom_error_message='the recipe is "decoupled", "regularised" or "paper"'
    ),
]


class ProgressOut(BaseModel):
    phase: str
    step: int
    steps: int
    fraction: float
    steps_per_second: float | None


class ErrorOut(BaseModel):
    """Why the job failed; `type` is stable, `detail` is for people."""

    # Not validated, because rows are shown as they were written, whatever the release.
    type: str = Field(
        description=" ".join(f"`{type}`: {failure.meaning}" for type, failure in FAILURES.items()),
        json_schema_extra={"enum": list(FAILURES)},
    )
    detail: str


class JobOut(BaseModel):
    """One training. `config` has every hyper-parameter, with what was left open filled in."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    state: State
    checkpoint_id: str
    predictor_id: str | None
    architecture: str | None
    data: DatasetSource | NoiseSource | None
    config: dict[str, Any]
    notes: list[str] = Field(description="What the job can't do, and why")
    attempt: int = Field(description="How often it was started")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    estimated_finish_at: datetime | None
    progress: ProgressOut | None
    metrics: dict[str, Any] | None = Field(description="Latest losses, and accuracy and agreement on held-out images")
    error: ErrorOut | None


IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1, max_length=255, description="The same key with the same body creates one job, however often it is sent"
    ),
]


@router.post("", status_code=202, dependencies=[Depends(require_json)])
def create_job(
    body: JobIn, request: Request, response: Response, context: Ctx, idempotency_key: IdempotencyKey = None
) -> JobOut:
    """Creates a job. It waits until a worker is free."""
    digest = hashlib.sha256(body.model_dump_json().encode()).hexdigest()
    try:
        job = _create(context, body, idempotency_key, digest)
    except IntegrityError:
        # Another request with the same key was faster.
        job = _create(context, body, idempotency_key, digest)
    context.waker.wake(job.id)
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return out(job)


@router.get("")
def list_jobs(
    session: Reading,
    state: State | None = None,
    checkpoint_id: str | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ListOf[JobOut]:
    """Lists jobs, perhaps only those in one state or of one checkpoint."""
    page = jobs.page(session, state=state, checkpoint_id=checkpoint_id, **page_arguments(limit, cursor))
    return ListOf(items=[out(job) for job in page.items], next_cursor=opaque(page.next_cursor))


@router.get("/{id}")
def show_job(id: str, session: Reading) -> JobOut:
    """Shows one job: where it stands, how good it is so far, when it will be done."""
    return out(find(session, id))


@router.post("/{id}/cancel", status_code=202)
def cancel_job(id: str, context: Ctx, session: Writing) -> JobOut:
    """Cancels a job that is not over. A running one ends with its current step."""
    job = find(session, id)
    if not jobs.request_cancel(session, id, context.clock()):
        session.refresh(job)
        raise problems.Impossible(f"job {id} is over, it has {job.state}")
    session.refresh(job)
    return out(job)


def find(session: Session, id: str) -> Job:
    """The job of this id. Raises NotFound."""
    if (job := jobs.get(session, id)) is None:
        raise problems.NotFound(f"there is no job {id}")
    return job


def out(job: Job) -> JobOut:
    """A job as clients see it."""
    data = {"dataset_id": job.dataset_id} if job.dataset_id else {"noise": job.noise} if job.noise else None
    values = {name: getattr(job, name) for name in JobOut.model_fields if name != "data"}
    return JobOut.model_validate({**values, "data": data})


def _create(context: Context, body: AnyJob, key: str | None, digest: str) -> Job:
    with context.database.write() as session:
        if key and (earlier := jobs.with_key(session, key)):
            if earlier.request_digest != digest:
                raise problems.KeyReused(f"Idempotency-Key {key!r} was used for job {earlier.id}, with another body")
            return earlier
        checkpoint = checkpoints.find(session, body.checkpoint_id, lock=True)
        dataset = datasets.find(session, body.data.dataset_id, lock=True) if isinstance(body.data, DatasetSource) else None
        job = _plan(body, checkpoint, dataset)
        job.idempotency_key, job.request_digest = key, digest
        job.created_at = job.woken_at = context.clock()
        jobs.add(session, job)
        return job


def _plan(body: AnyJob, checkpoint: Checkpoint, dataset: Dataset | None) -> Job:
    """The row of a new job, its configuration resolved for this checkpoint. Raises Invalid, NotRepresentable."""
    if body.architecture is not None and body.architecture not in architectures.architectures():
        raise problems.Invalid(
            f"there is no architecture {body.architecture!r}",
            errors=[{"pointer": "/architecture", "detail": "unknown architecture"}],
        )
    architecture = body.architecture or checkpoint.architecture
    given = body.model_dump(exclude=set(JobInputs.model_fields), exclude_unset=True)
    config = read_config({**given, "recipe": body.recipe})
    shapes = _shapes(checkpoint)
    if architecture is not None:
        noise = body.data.noise if isinstance(body.data, NoiseSource) else None
        fitting.check(architecture, shapes, dataset, noise, config.synthesised_images)
    distils = architecture is not None and body.data is not None
    if config.target and not (distils and dataset and dataset.classes):
        raise problems.Invalid(
            "an accuracy target needs a known architecture and a dataset with labels to measure it on",
            errors=[{"pointer": "/target", "detail": "there is nothing to measure accuracy on"}],
        )
    if isinstance(config, RegularisedConfig) and not distils:
        raise problems.Invalid(
            "the regularised recipe needs a known architecture and data to fine-tune the network on",
            errors=[{"pointer": "/data", "detail": "needed by this recipe"}],
        )
    try:
        config = config.resolve(choose_layers(shapes, config, architecture), distil=distils, architecture=architecture)
    except nern.errors.NotRepresentable as error:
        raise problems.NotRepresentable(str(error)) from error
    except ValueError as error:
        raise problems.Invalid(str(error)) from error
    notes = []
    if not distils:
        reason = "there is no data" if architecture else "the architecture is unknown"
        notes.append(f"{reason}, so only the weights are reconstructed: nothing is distilled and accuracy is not measured")
        if body.importance:
            notes.append("without them no weight's importance can be measured either")
    elif not config.distils:
        notes.append("no step follows the original network, so only the weights are reconstructed: nothing is distilled")
    return Job(
        id=new_id(),
        state="queued",
        checkpoint_id=checkpoint.id,
        dataset_id=body.data.dataset_id if isinstance(body.data, DatasetSource) else None,
        noise=body.data.noise if isinstance(body.data, NoiseSource) else None,
        architecture=architecture,
        config=config.model_dump(mode="json"),
        notes=notes,
        attempt=0,
        fence=0,
        cancel_requested=False,
    )


def _shapes(checkpoint: Checkpoint) -> StateDict:
    """The tensors of a checkpoint without their values; the dtype of a convolution does not matter here."""
    convolutions = {layer["name"]: torch.empty(layer["shape"], device="meta") for layer in checkpoint.layers}
    kept = {
        tensor["name"]: torch.empty(tensor["shape"], dtype=tensorfile.DTYPES[tensor["dtype"]], device="meta")
        for tensor in checkpoint.kept
    }
    return convolutions | kept
