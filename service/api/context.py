"""What requests need from the application: settings, the database, blobs. Handlers never commit, their transaction does."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from service.clock import Clock
from service.jobs.wakeups import Waker
from service.serving.predictors import Predictors
from service.serving.renderer import Renderer
from service.settings import Settings
from service.store.blobs import Blobs
from service.store.database import Database
from service.uploads.intake import Intake


@dataclass(frozen=True)
class Context:
    """The parts of a running service."""

    settings: Settings
    database: Database
    blobs: Blobs
    intake: Intake
    predictors: Predictors
    waker: Waker
    renderer: Renderer
    clock: Clock
    probes: Mapping[str, Callable[[], None]]
    """What else must be well for the service to be ready, by name: each raises if it is not."""
    stopping: Event
    """Set when the server is to stop: streams without an end of their own end then."""


def context(request: Request) -> Context:
    return cast("Context", request.app.state.context)


Ctx = Annotated[Context, Depends(context)]


def _reading(context: Ctx) -> Iterator[Session]:
    with context.database.read() as session:
        yield session


def _writing(context: Ctx) -> Iterator[Session]:
    with context.database.write() as session:
        yield session


# The transaction ends before the response starts, so that a client never hears of what is not committed.
Reading = Annotated[Session, Depends(_reading, scope="function")]
Writing = Annotated[Session, Depends(_writing, scope="function")]
