"""The routes with which owners share their things for reading."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from service.api import checkpoints, datasets, jobs, predictors
from service.api.context import Reading, Writing
from service.http.policy import policy
from service.store import shares
from service.store.owners import NAME

router = APIRouter(prefix="/v1", tags=["sharing"])

Kind = Literal["checkpoints", "datasets", "jobs", "predictors"]

Reader = Annotated[str, Field(pattern=rf"{NAME.pattern}|^\*$")]

MAX_READERS = 1000


class Readers(BaseModel):
    """Who may read a thing besides its owner."""

    model_config = ConfigDict(extra="forbid")

    readers: list[Reader] = Field(max_length=MAX_READERS, description="Names of owners, or `*` for every owner")


@router.get("/{kind}/{id}/readers")
@policy("read")
def show_readers(kind: Kind, id: str, session: Reading) -> Readers:
    """Tells who may read a thing of the owner."""
    return Readers(readers=shares.readers(session, _find(session, kind, id)))


@router.put("/{kind}/{id}/readers")
@policy("write")
def put_readers(kind: Kind, id: str, body: Readers, session: Writing) -> Readers:
    """Shares a thing of the owner for reading with these owners, and with no others.

    A reader sees the thing under its id, and in lists with `?shared=true`. The job of a reader may use a shared checkpoint and
    a shared dataset. Nobody but the owner can change, delete or share the thing.
    """
    shares.put(session, _find(session, kind, id), body.readers)
    session.flush()
    return Readers(readers=shares.readers(session, id))


def _find(session: Session, kind: Kind, id: str) -> str:
    """The id of a thing of the owner. Raises NotFound."""
    finders: dict[Kind, Any] = {
        "checkpoints": checkpoints.find,
        "datasets": datasets.find,
        "jobs": jobs.find,
        "predictors": predictors.find,
    }
    finders[kind](session, id)
    return id
