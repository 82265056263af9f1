"""Jobs: trainings of predictors."""

import hashlib
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nern.request.job import AnyJobRequest, DatasetSource, JobRequest, NoiseSource
from service import problems
from service.api import checkpoints, datasets
from service.api.bodies import require_json
from service.api.context import Context, Ctx, Reading, Writing, now
from service.api.lists import Cursor, Limit, ListOf, opaque, page_arguments
from service.jobs.planning import new_job
from service.store import jobs
from service.store.jobs import State
from service.store.tables import Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class ProgressOut(BaseModel):
    phase: str
    step: int
    steps: int
    fraction: float
    steps_per_second: float | None


class ErrorOut(BaseModel):
    """Why the job failed; `type` is stable, `detail` is for people."""

    type: str
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
    body: AnyJobRequest, request: Request, response: Response, context: Ctx, idempotency_key: IdempotencyKey = None
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
def cancel_job(id: str, session: Writing) -> JobOut:
    """Cancels a job that is not over. A running one ends with its current step."""
    job = find(session, id)
    if not jobs.request_cancel(session, id, now()):
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


def _create(context: Context, body: JobRequest, key: str | None, digest: str) -> Job:
    with context.database.write() as session:
        if key and (earlier := jobs.with_key(session, key)):
            if earlier.request_digest != digest:
                raise problems.KeyReused(f"Idempotency-Key {key!r} was used for job {earlier.id}, with another body")
            return earlier
        checkpoint = checkpoints.find(session, body.checkpoint_id, lock=True)
        dataset = datasets.find(session, body.data.dataset_id, lock=True) if isinstance(body.data, DatasetSource) else None
        job = new_job(body, checkpoint, dataset, now=now())
        job.idempotency_key, job.request_digest = key, digest
        jobs.add(session, job)
        return job
