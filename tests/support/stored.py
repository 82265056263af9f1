"""Stores predictors in the database of a service, as a worker would."""

import hashlib

from nern.layers import StateDict
from service.store import predictors
from service.store.database import Database
from tests.support import rows
from tests.support.representations import untrained, written


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
