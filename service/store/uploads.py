"""Queries about resumable uploads.

A request that writes to an upload takes it over first, which increases the fence. Every write of the request names this fence
and is refused if a later request has taken the upload over. So of two requests for one upload, the later one goes on.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.orm import Session

from service.store.tables import Json, Upload, UploadPart

State = Literal["receiving", "received", "done", "refused", "abandoned"]
"""`receiving`: bytes are missing. `received`: all bytes are stored, and the file is inspected or waits for that. `done`: the
file has become a checkpoint or a dataset. `refused`: the file was refused. `abandoned`: the client has ended the upload."""


def get(session: Session, id: str) -> Upload | None:
    """The upload of this id."""
    return session.get(Upload, id)


def add(session: Session, upload: Upload) -> None:
    """Stores a new upload."""
    session.add(upload)


def take_over(session: Session, id: str, *, offset: int, length: int | None, now: datetime) -> int | None:
    """Gives the upload to a request that goes on at `offset`. Returns the fence of the request.

    `length` is set if the upload has none yet. Returns None if the upload has another offset, another length or another state,
    or has expired.
    """
    is_open = (Upload.state == "receiving", Upload.expires_at > now)
    may_have = or_(Upload.length.is_(None), Upload.length == length) if length is not None else Upload.id == id
    values: dict[str, Any] = {"fence": Upload.fence + 1} | ({} if length is None else {"length": length})
    return _change(session, id, *is_open, Upload.offset == offset, may_have, **values)


def record(
    session: Session,
    id: str,
    fence: int,
    *,
    replaced: Sequence[UploadPart],
    added: Sequence[UploadPart],
    offset: int,
    complete: bool,
    expires_at: datetime,
) -> bool:
    """Writes that the parts `added` are stored, in place of the parts `replaced`, so that the upload now ends at `offset`.

    Returns False, and writes nothing, if another request has taken the upload over or the client has ended it.
    """
    state: State = "received" if complete else "receiving"
    held = (Upload.fence == fence, Upload.state == "receiving")
    if _change(session, id, *held, offset=offset, state=state, expires_at=expires_at) is None:
        return False
    starts = [part.start for part in replaced]
    session.execute(delete(UploadPart).where(UploadPart.upload_id == id, UploadPart.start.in_(starts)))
    session.add_all(added)
    return True


def parts(session: Session, id: str) -> Sequence[UploadPart]:
    """The parts of an upload, in order."""
    return session.scalars(select(UploadPart).where(UploadPart.upload_id == id).order_by(UploadPart.start)).all()


def last_parts(session: Session, id: str, limit: int) -> Sequence[UploadPart]:
    """The last `limit` parts of an upload, in order."""
    query = select(UploadPart).where(UploadPart.upload_id == id).order_by(UploadPart.start.desc()).limit(limit)
    return session.scalars(query).all()[::-1]


def lease(session: Session, id: str, *, now: datetime, until: datetime) -> int | None:
    """Gives the right to take in the file of a received upload to one process, until `until`. Returns the fence, or None."""
    free = or_(Upload.leased_until.is_(None), Upload.leased_until <= now)
    values = {"fence": Upload.fence + 1, "attempts": Upload.attempts + 1, "leased_until": until}
    return _change(session, id, Upload.state == "received", free, **values)


def extend(session: Session, id: str, fence: int, *, until: datetime | None) -> bool:
    """Moves the end of a lease; None ends it now. Returns False if the lease was lost."""
    return _change(session, id, Upload.state == "received", Upload.fence == fence, leased_until=until) is not None


def conclude(
    session: Session,
    id: str,
    fence: int,
    state: Literal["done", "refused"],
    *,
    resource: str | None,
    problem: Json | None,
    expires_at: datetime,
) -> bool:
    """Ends a received upload. Returns False if the lease was lost."""
    ended = {"state": state, "resource": resource, "problem": problem, "expires_at": expires_at, "leased_until": None}
    return _change(session, id, Upload.state == "received", Upload.fence == fence, **ended) is not None


def abandon(session: Session, id: str, *, now: datetime) -> bool:
    """Ends an upload because the client wants it. Returns False if its file is being taken in at the moment."""
    free = or_(Upload.state != "received", Upload.leased_until.is_(None), Upload.leased_until <= now)
    ended = {"state": "abandoned", "fence": Upload.fence + 1, "expires_at": now}
    return _change(session, id, free, **ended) is not None


def waiting(session: Session, *, now: datetime, max_attempts: int) -> Sequence[str]:
    """The ids of received uploads whose file nobody takes in, and that have not been tried `max_attempts` times."""
    free = or_(Upload.leased_until.is_(None), Upload.leased_until <= now)
    query = select(Upload.id).where(Upload.state == "received", free, Upload.attempts < max_attempts, Upload.expires_at > now)
    return session.scalars(query.order_by(Upload.id)).all()


def expired(session: Session, *, before: datetime, limit: int) -> Sequence[str]:
    """The ids of at most `limit` uploads that expired at the time `before` or earlier."""
    return session.scalars(select(Upload.id).where(Upload.expires_at <= before).order_by(Upload.expires_at).limit(limit)).all()


def remove(session: Session, id: str) -> None:
    """Removes the rows of an upload, if they exist. The caller has deleted the blobs."""
    session.execute(delete(UploadPart).where(UploadPart.upload_id == id))
    session.execute(delete(Upload).where(Upload.id == id))


def _change(session: Session, id: str, *conditions: ColumnElement[bool], **values: Any) -> int | None:
    """Changes the row if it meets all conditions. Returns its fence then, else None."""
    query = update(Upload).where(Upload.id == id, *conditions).values(**values).returning(Upload.fence)
    return session.scalar(query.execution_options(synchronize_session=False))
