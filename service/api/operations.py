"""The routes for operators: whether the service is alive and ready, and what its errors mean."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anyio import fail_after, to_thread
from fastapi import APIRouter
from pydantic import BaseModel, Field

from service import problems
from service.api.context import Ctx
from service.http.openapi import raises
from service.http.policy import policy
from service.store import migrate
from service.store.marking import mark

router = APIRouter(tags=["operations"])

# The deadline of each probe. A dependency that takes longer is not ready.
PROBE_SECONDS = 3.0

# With less room in the data folder, the service takes no more uploads.
MIN_FREE_BYTES = 64 * 2**20


class Health(BaseModel):
    """The answer of the liveness probe."""

    status: str = Field(description="Always ok")


class ProblemKind(BaseModel):
    """One kind of error."""

    type: str = Field(description="The `type` of the errors of this kind, and the path of this description")
    title: str
    status: int = Field(description="HTTP status code")
    description: str = Field(description="What the error means, and what the client can do")


@router.get("/livez")
@policy("open")
async def livez() -> Health:
    """The liveness probe: answers as long as the process is alive."""
    return Health(status="ok")


@router.get("/readyz")
@policy("open")
@raises(problems.Unavailable)
async def readyz(context: Ctx) -> dict[str, str]:
    """The readiness probe: tells whether the service and everything that it depends on are ready.

    The answer has an entry for each dependency: the database, its schema, the blob store, the room in the data folder, the
    broker, the inspecting processes, and the local worker if there is one. An entry is `ok` or the name of an error. The status
    is 200 if all entries but the broker's are `ok`, else 503: without the broker, workers find jobs when they look by
    themselves.
    """
    probes: dict[str, Callable[[], Any]] = {
        "database": context.whole_database.probe,
        "schema": lambda: migrate.probe(context.whole_database),
        "blobs": lambda: mark(context.whole_database, context.blobs),
        "storage": lambda: _probe_storage(context.settings.data_dir),
        "broker": context.waker.probe,
        **context.probes,
    }
    found = await asyncio.gather(*(_probe(probe) for probe in probes.values()))
    checks = dict(zip(probes, found, strict=True))
    if failing := sorted(name for name, state in checks.items() if state != "ok" and name != "broker"):
        raise problems.Unavailable(f"the service is not ready, because these probes fail: {', '.join(failing)}", checks=checks)
    return checks


@router.get("/problems")
@policy("open")
def problem_kinds() -> list[ProblemKind]:
    """Lists all kinds of errors that the service answers with."""
    return [_describe(kind) for kind in problems.KINDS.values()]


@router.get("/problems/{slug}")
@policy("open")
def problem_kind(slug: str) -> ProblemKind:
    """Describes one kind of error. The `type` of an error is the path of this route."""
    if slug not in problems.KINDS:
        raise problems.NotFound(f"there is no kind of problem {slug!r}; /problems lists all kinds")
    return _describe(problems.KINDS[slug])


def _probe_storage(folder: Path) -> None:
    """Raises StorageFull if the folder of uploads in progress has hardly any room left."""
    if (free := shutil.disk_usage(folder).free) < MIN_FREE_BYTES:
        raise problems.StorageFull(f"{folder} has {free // 2**20} MiB left")


async def _probe(probe: Callable[[], Any]) -> str:
    try:
        with fail_after(PROBE_SECONDS):
            await to_thread.run_sync(probe, abandon_on_cancel=True)
    except Exception as error:  # whatever a dependency raises, it is not ready
        return type(error).__name__
    return "ok"


def _describe(kind: type[problems.Problem]) -> ProblemKind:
    return ProblemKind(
        type=f"/problems/{kind.slug}", title=kind.title, status=kind.status, description=" ".join((kind.__doc__ or "").split())
    )
