"""The artefact of a predictor, read from the database."""

from collections.abc import Generator
from dataclasses import dataclass

from service.store import predictors
from service.store.database import Database


@dataclass(frozen=True)
class ArtefactFile:
    """A byte source: the artefact of the predictor with this id."""

    database: Database
    id: str
    nbytes: int
    etag: str
    media_type: str = "application/vnd.safetensors"

    def read(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop. Each piece comes from one chunk of the database."""
        return stored(self.database, self.id, start, stop)


def stored(database: Database, id: str, start: int, stop: int) -> Generator[bytes, None, None]:
    """Yields bytes start..stop of the artefact of a predictor. Each piece comes from one chunk of the database."""
    while start < stop:
        end = min(stop, (start // predictors.CHUNK_BYTES + 1) * predictors.CHUNK_BYTES)
        with database.read() as session:
            piece = predictors.read(session, id, start, end)
        # Outside of the block, so that no connection is held while a client receives the piece.
        yield piece
        start = end
