"""The route of a job's events: a page of JSON, or a stream of server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from starlette.concurrency import run_in_threadpool

from service import problems
from service.api.context import Context, Ctx
from service.api.jobs import find
from service.api.reports import Metrics, Progress, Resumption, StateChange
from service.http.lists import EVENT_NUMBER, MAX_PAGE_ITEMS, Cursor, Limit, ListOf, opaque, page_arguments
from service.http.negotiation import choose
from service.http.openapi import raises
from service.http.policy import policy
from service.store import jobs
from service.store.database import Away
from service.store.job_states import FINAL
from service.store.tables import JobEvent

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

MAX_EVENT_NUMBER = 10**12

# A stream sends a comment after this time without an event, because proxies close connections on which nothing is sent.
KEEP_ALIVE_SECONDS = 15


class Event(BaseModel):
    """An event of a job."""

    model_config = ConfigDict(from_attributes=True)

    number: int = Field(description="Number of the event: the events of a job count from 1, without gaps")
    created_at: datetime


class ProgressEvent(Event):
    """How far the job is."""

    kind: Literal["progress"]
    data: Progress


class MetricsEvent(Event):
    """The latest losses, and the latest evaluation of the predictor."""

    kind: Literal["metrics"]
    data: Metrics


class StateEvent(Event):
    """The job has changed to another state."""

    kind: Literal["state"]
    data: StateChange


class ResumedEvent(Event):
    """A worker has taken the training up again."""

    kind: Literal["resumed"]
    data: Resumption


EventOut = Annotated[ProgressEvent | MetricsEvent | StateEvent | ResumedEvent, Field(discriminator="kind")]

EVENTS: TypeAdapter[list[EventOut]] = TypeAdapter(list[EventOut])

LastEventId = Annotated[
    int | None,
    Header(
        ge=0,
        le=MAX_EVENT_NUMBER,
        description="Number of the last event that the client has received. The answer has later events only",
    ),
]

After = Annotated[int | None, Query(ge=0, le=MAX_EVENT_NUMBER, description="Later events only: those after this number")]
Newest = Annotated[
    int | None,
    Query(ge=1, description=f"The newest events only, so many. More than {MAX_PAGE_ITEMS} count as {MAX_PAGE_ITEMS}"),
]


@router.get(
    "/{id}/events",
    response_model=ListOf[EventOut],
    responses={
        200: {"content": {"text/event-stream": {}}},
        204: {"description": "The job is over, and no event follows Last-Event-ID"},
    },
)
@policy("read")
@raises(problems.NotAcceptable)
async def job_events(
    id: str,
    request: Request,
    context: Ctx,
    limit: Limit = 50,
    cursor: Cursor = None,
    after: After = None,
    tail: Newest = None,
    last_event_id: LastEventId = None,
) -> ListOf[EventOut] | Response:
    """Lists the events of a job, oldest first: all, those `after` a number, or the newest ones (`tail`).

    With `Accept: text/event-stream`, the answer is a stream of server-sent events: all events from the first one, or those
    after `Last-Event-ID` or `after`, then every new event as it happens. The stream ends after the event of a final state. It
    stays open while the database does not answer.
    """
    if choose(request, {"json": "application/json", "sse": "text/event-stream"}, None) == "sse":
        return await _stream_of(context, id, last_event_id or after or 0)
    await run_in_threadpool(_exists, context, id)
    if tail is not None:
        rows = await run_in_threadpool(_newest, context, id, min(tail, MAX_PAGE_ITEMS))
        return ListOf(items=EVENTS.validate_python(rows, from_attributes=True), next_cursor=None)
    page = page_arguments(limit, cursor, kind=EVENT_NUMBER)
    first = int(page["cursor"] or last_event_id or after or 0)
    rows = await run_in_threadpool(_after, context, id, first, page["limit"] + 1)
    shown = rows[: page["limit"]]
    items = EVENTS.validate_python(shown, from_attributes=True)
    return ListOf(items=items, next_cursor=opaque(str(shown[-1].number)) if len(rows) > len(shown) else None)


async def _stream_of(context: Context, id: str, after: int) -> Response:
    """The answer with the events after a number. A browser gives up after an error, so there is none that is not final."""
    with suppress(Away):
        await run_in_threadpool(_exists, context, id)
        if after and await run_in_threadpool(_is_over, context, id, after):
            # A browser connects again whenever a stream ends. The status 204 tells it to stop.
            return Response(status_code=204)
    return StreamingResponse(
        _stream(context, id, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _stream(context: Context, id: str, after: int) -> AsyncIterator[bytes]:
    yield format_sse_event(comment=f"events of job {id}", retry=1000)
    try:
        while not await _may_be_followed(context, id):
            yield format_sse_event(comment="the database does not answer")
    except problems.NotFound:
        return
    async for rows in context.feed.follow(id, after, quiet_seconds=KEEP_ALIVE_SECONDS):
        for row in rows:
            yield format_sse_event(data_str=json.dumps(row.data), event=row.kind, id=str(row.number))
        if not rows:
            yield format_sse_event(comment="no events")


async def _may_be_followed(context: Context, id: str) -> bool:
    """Whether the job is one of the owner. False after a pause, if the database does not answer. Raises NotFound."""
    try:
        await run_in_threadpool(_exists, context, id)
    except Away:
        await asyncio.sleep(context.settings.poll_seconds)
        return False
    return True


def _exists(context: Context, id: str) -> None:
    """Raises NotFound unless there is a job of this id."""
    with context.database.read() as session:
        find(session, id, shared=True)


def _after(context: Context, id: str, after: int, limit: int) -> Sequence[JobEvent]:
    with context.database.read() as session:
        return jobs.events(session, id, after=after, limit=limit)


def _newest(context: Context, id: str, limit: int) -> Sequence[JobEvent]:
    with context.database.read() as session:
        return jobs.tail(session, id, limit)


def _is_over(context: Context, id: str, after: int) -> bool:
    """Whether the job is over and has no event with a number greater than `after`."""
    with context.database.read() as session:
        return find(session, id, shared=True).state in FINAL and not jobs.events(session, id, after=after, limit=1)
