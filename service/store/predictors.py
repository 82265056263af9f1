"""Queries about predictors, and about the bytes of their artefacts."""

from collections.abc import Iterable

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from service.store import shares
from service.store.owners import SHARED, shared_with
from service.store.pages import Page, newest_first
from service.store.tables import Job, Predictor, PredictorChunk

CHUNK_BYTES = 2**20


def get(session: Session, id: str, *, shared: bool = False) -> Predictor | None:
    """The predictor of this id. `shared`: it may be one that another owner shares with the owner of the session."""
    return session.get(Predictor, id, execution_options=SHARED if shared else {})


def page(
    session: Session, *, checkpoint_id: str | None, shared: bool = False, limit: int, cursor: str | None
) -> Page[Predictor]:
    """A page of predictors of the owner, or shared with the owner: all, or those of one checkpoint."""
    query = shared_with(session, select(Predictor), Predictor) if shared else select(Predictor)
    if checkpoint_id:
        query = query.where(Predictor.checkpoint_id == checkpoint_id)
    return newest_first(session, query, Predictor.id, limit=limit, cursor=cursor)


def add(session: Session, predictor: Predictor, content: Iterable[bytes]) -> None:
    """Stores a predictor and the bytes of its artefact, which may come in pieces of any size."""
    session.add(predictor)
    session.flush()
    buffer, number = bytearray(), 0
    for piece in content:
        view = memoryview(piece)
        while view:
            taken = view[: CHUNK_BYTES - len(buffer)]
            buffer += taken
            view = view[len(taken) :]
            if len(buffer) == CHUNK_BYTES:
                _add_chunk(session, predictor.id, number, bytes(buffer))
                buffer.clear()
                number += 1
    if buffer:
        _add_chunk(session, predictor.id, number, bytes(buffer))


def of_job(session: Session, job_id: str) -> str | None:
    """The id of the predictor that a job has made and that was not deleted."""
    return session.scalar(select(Predictor.id).where(Predictor.job_id == job_id))


def remove(session: Session, predictor: Predictor) -> None:
    """Removes a predictor and its bytes. Its job stays, without a predictor."""
    session.execute(update(Job).where(Job.id == predictor.job_id).values(predictor_id=None))
    session.execute(delete(PredictorChunk).where(PredictorChunk.predictor_id == predictor.id))
    shares.forget(session, predictor.id)
    session.delete(predictor)


def read(session: Session, id: str, start: int, stop: int) -> bytes:
    """Bytes start..stop (half-open) of the artefact of a predictor."""
    if stop <= start:
        return b""
    first, last = start // CHUNK_BYTES, (stop - 1) // CHUNK_BYTES
    query = select(PredictorChunk.data).where(PredictorChunk.predictor_id == id, PredictorChunk.number.between(first, last))
    content = b"".join(session.scalars(query.order_by(PredictorChunk.number)))
    return content[start - first * CHUNK_BYTES : stop - first * CHUNK_BYTES]


def _add_chunk(session: Session, predictor_id: str, number: int, data: bytes) -> None:
    session.execute(insert(PredictorChunk).values(predictor_id=predictor_id, number=number, data=data))
