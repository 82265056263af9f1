"""The database of a service, and predictors that are stored in it as a worker would store them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from nern.layers import StateDict
from service.settings import Settings
from service.store import predictors
from service.store.database import Database
from tests.support import migrated, rows
from tests.support.representations import untrained, written


@contextmanager
def embedded_database(settings: Settings) -> Iterator[Database]:
    """A block in which the migrated SQLite database of an embedded service is open."""
    settings.data_dir.mkdir()
    database = migrated.sqlite(settings.database)
    yield database
    database.close()


def store_predictor(database: Database, state_dict: StateDict) -> str:
    """Stores an untrained predictor, with its checkpoint and its job. Returns the id of the predictor."""
    representation = untrained(state_dict)
    content, nbytes = written(representation, state_dict)
    checkpoint = rows.checkpoint()
    job = rows.job(checkpoint.id, state="succeeded", attempt=1, fence=1)
    predictor = rows.predictor(
        job,
        layers=[
            {"index": index, "name": layer.name, "shape": list(layer.shape), "kernel_size": list(layer.kernel_size)}
            for index, layer in enumerate(representation.layers)
        ],
        size=nbytes.total,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        session.add(job)
        session.flush()
        predictors.add(session, predictor, [content])
    return predictor.id
