"""The routes of jobs (trainings of predictors)."""

import hashlib
import logging
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nern.request.job import AnyJobRequest, DatasetSource, JobRequest, NoiseSource, SequentialNetwork
from service import problems
from service.access.limits import check_jobs
from service.api import checkpoints, datasets
from service.api.context import Context, Ctx, Reading, Writing
from service.api.reports import JobError, Metrics, Progress
from service.api.workers import Place
from service.http.errors import lost
from service.http.lists import Cursor, Limit, ListOf, Shared, opaque, page_arguments
from service.http.openapi import raises
from service.http.policy import policy
from service.http.request_ids import request_id_of
from service.jobs.planning import new_job
from service.logs.context import within
from service.store import blobs, deliveries, graphs, jobs, predictors
from service.store.blobs import Unreachable
from service.store.database import now
from service.store.job_states import FINAL, State
from service.store.tables import Delivery, Job
from service.tracing.links import traceparent
from service.webhooks import signing
from service.webhooks.addresses import Forbidden, parse_networks, resolve

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class JobOut(BaseModel):
    """One training of a predictor for a checkpoint."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    owner: str = Field(description="Whose it is. Empty for a thing of the service itself")
    state: State = Field(description="State of the job. succeeded, failed and cancelled are final")
    checkpoint_id: str
    predictor_id: str | None = Field(
        description="The predictor that the job has made; null unless the job has succeeded, and when it was deleted"
    )
    architecture: str | None = Field(
        description="The architecture of the network; `graph` if a graph or a description computes it; null if it is unknown"
    )
    network: SequentialNetwork | None = Field(description="The sequential network that the job describes; null without one")
    data: DatasetSource | NoiseSource | None = Field(description="The images to distil from; null if there are none")
    config: dict[str, Any] = Field(description="Every option of the recipe, with its value for this job")
    notes: list[str] = Field(description="What the job will not do, and why")
    webhook: str | None = Field(description="The URL that is told of the end of the job; null without one")
    priority: int = Field(description="Queued jobs of a higher priority are worked on first")
    attempt: int = Field(description="How often a worker has started the job")
    worker: Place | None = Field(description="Where the latest attempt ran; null if the job was never started")
    created_at: datetime
    started_at: datetime | None = Field(description="Start of the first attempt")
    finished_at: datetime | None = Field(description="When the job changed to a final state")
    estimated_finish_at: datetime | None = Field(description="Estimated end of the training; null unless the job is running")
    progress: Progress | None
    metrics: Metrics | None
    error: JobError | None = Field(description="Why the job failed; null unless it has failed")


class RetryRequest(BaseModel):
    """Where a job that is retried starts."""

    model_config = ConfigDict(extra="forbid")

    from_: Literal["snapshot", "start"] = Field(
        "snapshot", alias="from", description="From its newest snapshot, or from its first step"
    )


class Attempted(BaseModel):
    """An attempt to send a message."""

    at: datetime
    seconds: float
    status: int | None = Field(description="Status of the answer; null if there was none")
    error: str | None = Field(description="Why there was no answer; null if there was one")


class DeliveryOut(BaseModel):
    """A message to the webhook of a job."""

    id: str = Field(description="The header `webhook-id`, the same in each attempt")
    type: str = Field(description="job.succeeded, job.failed or job.cancelled")
    state: Literal["pending", "delivered", "failed"]
    due_at: datetime | None = Field(description="When it is sent next; null if it is not sent again")
    attempts: list[Attempted]


IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="A key that the client chooses. Requests with the same key and the same body create one job together",
    ),
]


@router.post("", status_code=202)
@policy("write")
@raises(problems.NotFound, problems.Lost, problems.TooManyJobs, problems.KeyReused, problems.NotRepresentable)
def create_job(
    body: AnyJobRequest, request: Request, response: Response, context: Ctx, idempotency_key: IdempotencyKey = None
) -> JobOut:
    """Creates a job: a training of a predictor for a checkpoint.

    The job is queued until a worker is free. The body has the options of one recipe, `decoupled` by default. An option that the
    body leaves out gets a default value, and the answer shows the values of all options in `config`. A job that is impossible
    for this checkpoint and these images is refused at once.
    """
    # A field that is not given does not count, so that the digest of a request stays when a release adds fields.
    digest = hashlib.sha256(body.model_dump_json(exclude_unset=True).encode()).hexdigest()
    with context.database.read() as session:
        repeated = idempotency_key is not None and jobs.with_key(session, idempotency_key) is not None
    if not repeated:
        _check_webhook(context, body)
        _check_blobs(context, body)
    request_id = request_id_of(request.scope)
    try:
        job = _create(context, body, idempotency_key, digest, request_id)
    except IntegrityError:
        # A request with the same Idempotency-Key has created the job meanwhile. The second call finds it.
        job = _create(context, body, idempotency_key, digest, request_id)
    with within(job_id=job.id):
        log.info("the job is stored" if job.request_id == request_id else "an earlier request has stored the job")
    context.waker.wake()
    response.headers["Location"] = f"{router.prefix}/{job.id}"
    return out(job)


@router.get("")
@policy("read")
def list_jobs(
    context: Ctx,
    session: Reading,
    state: State | None = None,
    checkpoint_id: str | None = None,
    shared: Shared = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ListOf[JobOut]:
    """Lists jobs, newest first. The parameters `state` and `checkpoint_id` restrict the list."""
    page = jobs.page(session, state=state, checkpoint_id=checkpoint_id, shared=shared, **page_arguments(limit, cursor))
    return ListOf(items=[out(job, reader=context.owner) for job in page.items], next_cursor=opaque(page.next_cursor))


@router.get("/{id}")
@policy("read")
def show_job(id: str, context: Ctx, session: Reading) -> JobOut:
    """Shows one job with its state, its progress, its latest metrics and its estimated end."""
    return out(find(session, id, shared=True), reader=context.owner)


@router.post("/{id}/cancel", status_code=202)
@policy("write")
@raises(problems.Impossible)
def cancel_job(id: str, context: Ctx, session: Writing) -> JobOut:
    """Cancels a job. A queued job is cancelled at once. A running job ends after its current step.

    A job that is cancelled already stays cancelled. The answer is 409 for a job that has succeeded or failed.
    """
    return _changed(session, find(session, id), jobs.request_cancel(session, id, now(session)), "cancelled")


@router.post("/{id}/pause", status_code=202)
@policy("write")
@raises(problems.Impossible)
def pause_job(id: str, context: Ctx, session: Writing) -> JobOut:
    """Pauses a job. A queued job is paused at once. A running job is paused after its current step, and holds no worker then.

    A job that is paused already stays paused. The answer is 409 for a job that is over.
    """
    return _changed(session, find(session, id), jobs.request_pause(session, id, now(session)), "paused")


@router.post("/{id}/resume", status_code=202)
@policy("write")
@raises(problems.Impossible)
def resume_job(id: str, context: Ctx, session: Writing) -> JobOut:
    """Queues a paused job again. It goes on from where it was paused. A running job that was to be paused goes on.

    A job that is queued or runs stays as it is. The answer is 409 for a job that is over.
    """
    job = _changed(session, find(session, id), jobs.resume(session, id, now(session)), "resumed")
    context.waker.wake()
    return job


@router.post("/{id}/retry", status_code=202)
@policy("write")
@raises(problems.Impossible)
def retry_job(id: str, context: Ctx, session: Writing, body: RetryRequest | None = None) -> JobOut:
    """Queues a job that has failed or was cancelled again. Its attempts are counted anew.

    The job goes on from its newest snapshot, or from its first step if it has no snapshot or the body says `{"from": "start"}`.
    A job that is queued or runs stays as it is. The answer is 409 for a job that has succeeded or is paused, and for one whose
    checkpoint or dataset was deleted.
    """
    job = find(session, id)
    from_start = body is not None and body.from_ == "start"
    try:
        checkpoints.find(session, job.checkpoint_id, lock=True, shared=True)
        if job.dataset_id:
            datasets.find(session, job.dataset_id, lock=True, shared=True)
    except problems.NotFound as problem:
        raise problems.Impossible(f"job {id} can't be retried: {problem.detail}") from None
    answer = _changed(session, job, jobs.retry(session, id, now(session), from_start=from_start), "retried")
    context.waker.wake()
    return answer


@router.get("/{id}/deliveries")
@policy("read")
def list_deliveries(id: str, session: Reading) -> list[DeliveryOut]:
    """Lists the messages to the webhook of a job, with each attempt to send them."""
    find(session, id)
    return [
        DeliveryOut(id=row.id, type=row.payload["type"], state=row.state, due_at=due_at(row), attempts=row.attempts)
        for row in deliveries.of_job(session, id)
    ]


@router.delete("/{id}", status_code=204, response_class=Response)
@policy("admin")
@raises(problems.Impossible, problems.InUse)
def delete_job(id: str, context: Ctx, background: BackgroundTasks) -> None:
    """Deletes a job that is over, with its events and snapshots.

    The answer is 409 for a job that is not over, and for a job whose predictor was not deleted.
    """
    with context.database.write() as session:
        job = find(session, id)
        session.refresh(job, with_for_update=True)
        if job.state not in FINAL:
            raise problems.Impossible(f"job {id} is {job.state}; cancel it first")
        if predictor := predictors.of_job(session, id):
            raise problems.InUse(f"job {id} has made predictor {predictor}; delete the predictor first")
        jobs.remove(session, id)
    # If this fails, the cleanup removes the blobs later.
    background.add_task(context.blobs.delete_folder, blobs.snapshot_folder(id))


def find(session: Session, id: str, *, shared: bool = False) -> Job:
    """The job of this id. `shared`: it may be one that another owner shares. Raises NotFound."""
    if (job := jobs.get(session, id, shared=shared)) is None:
        raise problems.NotFound(f"there is no job {id}")
    return job


def out(job: Job, *, reader: str | None = None) -> JobOut:
    """A job as its owner sees it, or as a reader does: without the webhook, unless the reader is the owner."""
    data = {"dataset_id": job.dataset_id} if job.dataset_id else {"noise": job.noise} if job.noise else None
    values = {name: getattr(job, name) for name in JobOut.model_fields if name != "data"}
    webhook = (job.webhook or {}).get("url") if reader in (None, job.owner) else None
    return JobOut.model_validate({**values, "data": data, "webhook": webhook})


def due_at(delivery: Delivery) -> datetime | None:
    """When a message is sent next."""
    return delivery.due_at if delivery.state == "pending" else None


def _check_blobs(context: Context, body: JobRequest) -> None:
    """Raises Lost if the bytes of the checkpoint or of the dataset are lost. A blob store that is away is no obstacle."""
    keys = [blobs.checkpoint_tensors(body.checkpoint_id)]
    if isinstance(body.data, DatasetSource):
        keys.append(blobs.dataset_tensors(body.data.dataset_id))
    with context.database.read() as session, suppress(problems.NotFound, Unreachable):
        checkpoints.find(session, body.checkpoint_id, shared=True)
        if isinstance(body.data, DatasetSource):
            datasets.find(session, body.data.dataset_id, shared=True)
        if not all(context.blobs.has(key) for key in keys):
            raise lost()


def _check_webhook(context: Context, body: JobRequest) -> None:
    """Raises Invalid for a webhook whose secret is none, or that may not be sent."""
    if body.webhook is None:
        return
    try:
        signing.key_of(body.webhook.secret)
    except ValueError as error:
        raise problems.Invalid(str(error), errors=[{"pointer": "/webhook/secret", "detail": str(error)}]) from None
    try:
        resolve(body.webhook.url, parse_networks(context.settings.webhook_networks))
    except Forbidden as error:
        raise problems.Invalid(str(error), errors=[{"pointer": "/webhook/url", "detail": str(error)}]) from None


def _changed(session: Session, job: Job, happened: bool, done: str) -> JobOut:
    """The job after a change that a client asked for. Raises Impossible if the change did not happen."""
    session.refresh(job)
    if not happened:
        is_or_has = "has" if job.state in ("succeeded", "failed") else "is"
        raise problems.Impossible(f"job {job.id} {is_or_has} {job.state}, so it can't be {done}")
    return out(job)


def _create(context: Context, body: JobRequest, key: str | None, digest: str, request_id: str) -> Job:
    with context.database.write() as session:
        if key and (earlier := jobs.with_key(session, key)):
            if earlier.request_digest != digest:  # the hash of the request's body
                raise problems.KeyReused(
                    f"a request with Idempotency-Key {key!r} and another body has created job {earlier.id}; use a new key"
                )
            return earlier
        check_jobs(session, context.settings)
        checkpoint = checkpoints.find(session, body.checkpoint_id, lock=True, shared=True)
        dataset = None
        if isinstance(body.data, DatasetSource):
            dataset = datasets.find(session, body.data.dataset_id, lock=True, shared=True)
        job = new_job(body, checkpoint, graphs.of(session, checkpoint.id), dataset, now=now(session))
        job.idempotency_key, job.request_digest = key, digest
        job.request_id, job.traceparent = request_id, traceparent()
        jobs.add(session, job)
        return job
