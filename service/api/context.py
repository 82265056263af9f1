"""What requests need from the application: settings, the database, blobs. Handlers never commit, their transaction does."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from service.blobs import Blobs
from service.serving.predictors import Predictors
from service.settings import Settings
from service.store.database import Database
from service.uploads.intake import Intake
from service.wake import Waker


@dataclass(frozen=True)
class Context:
    """The parts of a running service."""

    settings: Settings
    database: Database
    blobs: Blobs
    intake: Intake
    predictors: Predictors
    waker: Waker
    release: str
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


def now() -> datetime:
    return datetime.now(UTC)
