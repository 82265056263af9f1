"""The dependencies of endpoints: the context of the application, and sessions of the database.

An endpoint never commits. The transaction of its session is committed when the endpoint returns.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from threading import Event
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from service.access.keys import caller_of
from service.jobs.feed import Feed
from service.jobs.wakeups import Waker
from service.readiness import Readiness
from service.serving.predictors import Predictors
from service.serving.renderer import Renderer
from service.settings import Settings
from service.store.blobs import Blobs
from service.store.database import Database
from service.uploads.intake import Intake
from service.uploads.resumable import Uploads


@dataclass(frozen=True)
class Context:
    """The parts of a running service, as one owner sees them."""

    owner: str
    settings: Settings
    database: Database
    """The database as the owner sees it."""
    whole_database: Database
    """The database with the rows of all owners, for what is not about rows of owners."""
    blobs: Blobs
    intake: Intake
    uploads: Uploads
    predictors: Predictors
    waker: Waker
    feed: Feed
    renderer: Renderer
    readiness: Readiness
    stopping: Event
    """Set when the server is about to stop. Event streams end then."""

    def of(self, owner: str) -> "Context":
        """The same parts, as an owner sees them."""
        return replace(
            self,
            owner=owner,
            database=self.whole_database.of(owner),
            intake=self.intake.of(owner),
            uploads=self.uploads.of(owner),
        )


def context(request: Request) -> Context:
    """The context of the application that answers a request, as the sender of the request sees it."""
    return cast("Context", request.app.state.context).of(caller_of(request.scope).owner)


Ctx = Annotated[Context, Depends(context)]


def _reading(context: Ctx) -> Iterator[Session]:
    with context.database.read() as session:
        yield session


def _writing(context: Ctx) -> Iterator[Session]:
    with context.database.write() as session:
        yield session


# With the scope "function", the transaction ends before the response starts, so that a client learns only of committed changes.
Reading = Annotated[Session, Depends(_reading, scope="function")]
Writing = Annotated[Session, Depends(_writing, scope="function")]
