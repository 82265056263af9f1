"""The bytes of a stored artefact."""

from collections.abc import Generator
from dataclasses import dataclass

from service.store import predictors
from service.store.database import Database


@dataclass(frozen=True)
class ArtefactFile:
    """The artefact of a predictor, as a byte source."""

    database: Database
    id: str
    nbytes: int
    etag: str
    media_type: str = "application/vnd.safetensors"

    def read(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Bytes start..stop, a chunk of the database at a time."""
        return stored(self.database, self.id, start, stop)


def stored(database: Database, id: str, start: int, stop: int) -> Generator[bytes, None, None]:
    """Bytes start..stop of a predictor's artefact, a chunk of the database at a time, each over a connection of its own."""
    while start < stop:
        end = min(stop, (start // predictors.CHUNK_BYTES + 1) * predictors.CHUNK_BYTES)
        with database.read() as session:
            piece = predictors.read(session, id, start, end)
        # Not before the connection is back: a client may take its time.
        yield piece
        start = end
