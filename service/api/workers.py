"""The routes about work: which workers are alive, and how many jobs wait for them."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.api.context import Ctx
from service.api.reports import Progress
from service.http.policy import policy
from service.store import jobs, workers
from service.store.database import now

router = APIRouter(prefix="/v1", tags=["operations"])


class Place(BaseModel):
    """Where a worker runs."""

    host: str
    process: int = Field(description="Process id on the host")
    device: str = Field(description="Device of torch: cpu, cuda or cuda:1")
    device_name: str = Field(description="Name of the GPU or of the processor")
    release: str = Field(description="Version of nern")


class WorkerOut(Place):
    """A worker that is alive."""

    id: str
    free_memory: int = Field(description="Free memory of the GPU or of the machine, in bytes")
    fault: str | None = Field(description="What is wrong with its machine, so that it claims no jobs; null if nothing is")
    started_at: datetime
    seen_at: datetime = Field(description="When the worker has written this")
    busy: bool = Field(description="Whether it works on a job")
    job_id: str | None = Field(description="The job that it works on, if that is one of the owner's")
    progress: Progress | None = Field(description="Progress of that job")


class QueueOut(BaseModel):
    """The jobs that are not over, and those who work on them."""

    queued: int
    running: int
    paused: int
    unfinished: int = Field(description="Jobs that are queued or run: so many workers have something to do")
    oldest_seconds: float | None = Field(description="Age of the oldest queued job; null if none is queued")
    workers: int = Field(description="Workers that are alive")
    idle_workers: int = Field(description="Workers that are alive, have no fault and work on no job")


@router.get("/workers")
@policy("read")
def list_workers(context: Ctx) -> list[WorkerOut]:
    """Lists the workers that are alive, with the jobs that they work on. A killed worker is listed for some seconds more.

    A key of an owner shows the jobs of that owner. A key of the service itself shows all jobs.
    """
    with context.whole_database.read() as session:
        found = workers.alive(session, now(session))
    shown = [(worker, job is not None, job if job and context.owner in ("", job.owner) else None) for worker, job in found]
    return [
        WorkerOut(
            **worker.about,
            id=worker.id,
            free_memory=worker.free_memory,
            fault=worker.fault,
            started_at=worker.started_at,
            seen_at=worker.seen_at,
            busy=busy,
            job_id=job.id if job else None,
            progress=job.progress if job else None,
        )
        for worker, busy, job in shown
    ]


@router.get("/queue")
@policy("read")
def show_queue(context: Ctx) -> QueueOut:
    """Tells how many jobs wait and run, how long the oldest one has waited, and how many workers there are.

    A key of an owner counts the jobs of that owner. A key of the service itself counts all jobs.
    """
    with context.whole_database.read() as session:
        moment = now(session)
        found, alive = jobs.queue(session), workers.alive(session, moment)
    if context.owner:
        with context.database.read() as session:
            found = jobs.queue(session)
    return QueueOut(
        queued=found.queued,
        running=found.running,
        paused=found.paused,
        unfinished=found.queued + found.running,
        oldest_seconds=(moment - found.oldest).total_seconds() if found.oldest else None,
        workers=len(alive),
        idle_workers=sum(job is None and worker.fault is None for worker, job in alive),
    )
