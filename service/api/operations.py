"""Whether the service lives and is ready, and what its errors mean."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text
from starlette.concurrency import run_in_threadpool

from service import problems
from service.api.context import Context, Ctx
from service.http.policy import policy
from service.store import migrate

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    status: str


class ProblemKind(BaseModel):
    """One kind of error that this service answers with."""

    type: str
    title: str
    status: int
    description: str


@router.get("/livez")
@policy("open")
async def livez() -> Health:
    """Whether the process answers at all."""
    return Health(status="ok")


@router.get("/readyz")
@policy("open")
async def readyz(context: Ctx) -> dict[str, str]:
    """Whether everything that the service depends on answers, by name."""
    checks = {
        "database": await _probe(lambda: _database(context)),
        "schema": await _probe(lambda: migrate.probe(context.database)),
        "broker": await _probe(context.waker.probe),
        **{name: await _probe(probe) for name, probe in context.probes.items()},
    }
    try:
        await context.blobs.probe()
        checks["blobs"] = "ok"
    except Exception as error:  # whatever a dependency raises, it is not ready
        checks["blobs"] = type(error).__name__
    if failing := sorted(name for name, state in checks.items() if state != "ok"):
        raise problems.Unavailable(f"not ready: {', '.join(failing)}", checks=checks)
    return checks


@router.get("/problems")
@policy("open")
def problem_kinds() -> list[ProblemKind]:
    """All kinds of errors."""
    return [_describe(kind) for kind in problems.KINDS.values()]


@router.get("/problems/{slug}")
@policy("open")
def problem_kind(slug: str) -> ProblemKind:
    """What the `type` of an error means."""
    if slug not in problems.KINDS:
        raise problems.NotFound(f"there is no kind of problem {slug!r}")
    return _describe(problems.KINDS[slug])


def _database(context: Context) -> None:
    with context.database.read() as session:
        session.execute(text("SELECT 1"))


async def _probe(probe: Callable[[], Any]) -> str:
    try:
        await run_in_threadpool(probe)
    except Exception as error:  # whatever a dependency raises, it is not ready
        return type(error).__name__
    return "ok"


def _describe(kind: type[problems.Problem]) -> ProblemKind:
    return ProblemKind(
        type=f"/problems/{kind.slug}", title=kind.title, status=kind.status, description=" ".join((kind.__doc__ or "").split())
    )
