"""Makes sure that the blob store is the one that the rows of the database refer to."""

from sqlalchemy import select

from service.store import blobs
from service.store.blobs import Blobs, Unreachable
from service.store.database import Away, Database
from service.store.tables import Checkpoint, Installation


class WrongBlobStore(Unreachable):
    """The blob store does not have the blobs of the database: perhaps it is not mounted."""


def is_new(database: Database) -> bool:
    """Whether the database has no checkpoints, so that a blob folder may be made. False if the database does not answer."""
    try:
        return _newest(database) is None
    except Away:
        return False


def mark(database: Database, store: Blobs) -> None:
    """Marks a blob store that is new, or that an earlier release has used, with the id of the database.

    Raises what `check` raises, and WrongBlobStore for a store without a mark and without the blob of the newest checkpoint.
    """
    if store.owner is None:
        newest = _newest(database)
        if newest and not store.has(blobs.checkpoint_tensors(newest)):
            raise WrongBlobStore(f"the blob store has neither a mark nor the tensors of checkpoint {newest}; is it mounted?")
        store.mark(_id_of(database))
    check(database, store)


def check(database: Database, store: Blobs) -> None:
    """Raises WrongBlobStore unless the blob store has the mark of the database; Unreachable and Away."""
    owner = store.owner
    if owner is None:
        raise WrongBlobStore("the blob store is not that of the service, or is not mounted")
    if owner != _id_of(database):
        raise WrongBlobStore("the blob store belongs to another database")


def _id_of(database: Database) -> str:
    with database.read() as session:
        return session.execute(select(Installation.id)).scalar_one()


def _newest(database: Database) -> str | None:
    """The id of the newest checkpoint."""
    query = select(Checkpoint.id).where(Checkpoint.deleted_at.is_(None)).order_by(Checkpoint.id.desc()).limit(1)
    with database.read() as session:
        return session.scalar(query)
