"""Makes sure that the blob store is the one that the rows of the database refer to."""

from sqlalchemy import select

from service.store import blobs
from service.store.blobs import Blobs
from service.store.database import Database
from service.store.tables import Checkpoint


class WrongBlobStore(Exception):
    """The blob store does not have the blobs of the database: perhaps it is not mounted."""


def mark(database: Database, store: Blobs) -> None:
    """Marks a blob store that is new, or that an earlier release has used. Workers use only a marked one.

    Raises WrongBlobStore for a blob store without a mark and without the blob of the newest checkpoint; Unreachable and Away.
    """
    if store.marked:
        return
    with database.read() as session:
        newest = session.scalar(
            select(Checkpoint.id).where(Checkpoint.deleted_at.is_(None)).order_by(Checkpoint.id.desc()).limit(1)
        )
    if newest and not store.has(blobs.checkpoint_tensors(newest)):
        raise WrongBlobStore(f"the blob store has neither a mark nor the tensors of checkpoint {newest}; is it mounted?")
    store.mark()
