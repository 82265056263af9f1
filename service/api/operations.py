"""The routes for operators: whether the service is alive and ready, and what its errors mean."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service import problems
from service.api.context import Ctx
from service.http.openapi import raises
from service.http.policy import policy
from service.metrics.counted import READY
from service.readiness import DEGRADED, OK, UNKNOWN

# Asked every few seconds, by whatever runs the service.
PROBES = ("/livez", "/readyz")

router = APIRouter(tags=["operations"])


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
    broker, the inspecting processes, and the local worker if there is one. An entry is `ok`, the name of an error (such as
    `TimeoutError` after three seconds), `unknown` if the database would have to answer, or `degraded`. The service is degraded
    without the broker (workers find jobs when they look by themselves) and without the blob store (predictors are served;
    uploads and new jobs get 503). The status is 200 if every entry is `ok` or `degraded`, else 503.
    """
    states = await context.readiness.states()
    for part, state in states.items():
        READY.labels(part).set(state == OK)
    if failing := sorted(name for name, state in states.items() if state not in (OK, DEGRADED, UNKNOWN)):
        raise problems.Unavailable(f"the service is not ready, because these probes fail: {', '.join(failing)}", checks=states)
    return states


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


def _describe(kind: type[problems.Problem]) -> ProblemKind:
    return ProblemKind(
        type=f"/problems/{kind.slug}", title=kind.title, status=kind.status, description=" ".join((kind.__doc__ or "").split())
    )
