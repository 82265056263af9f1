"""Rows and artefacts in a service's database, as a worker would have left them."""

import hashlib
from datetime import UTC, datetime

from nern.layers import StateDict
from service.store import ids, jobs, predictors
from service.store.database import Database
from service.store.tables import Checkpoint, Job, Predictor
from tests.support.representations import untrained, written

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def store_predictor(database: Database, state_dict: StateDict) -> str:
    """A predictor that nobody trained, with its checkpoint and job; its id."""
    representation = untrained(state_dict)
    content, sizes = written(representation, state_dict)
    checkpoint = Checkpoint(
        id=ids.new_id(), sha256=ids.new_id(), filename="a.pt", size=1, format="torch-zip", architecture=None, candidates=[],
        layers=[], kept=[], weights=1, parameters=1, created_at=NOW,
    )  # fmt: skip
    job = Job(
        id=ids.new_id(), state="succeeded", checkpoint_id=checkpoint.id, config={}, notes=[], created_at=NOW, attempt=1,
        fence=1, cancel_requested=False,
    )  # fmt: skip
    predictor = Predictor(
        id=ids.new_id(), job_id=job.id, checkpoint_id=checkpoint.id, architecture=None, config={},
        layers=[
            {"index": index, "name": layer.name, "shape": list(layer.shape), "kernel_size": list(layer.size)}
            for index, layer in enumerate(representation.layers)
        ],
        report={}, size=sizes.total, sha256=hashlib.sha256(content).hexdigest(), created_at=NOW,
    )  # fmt: skip
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        jobs.add(session, job)
        predictors.add(session, predictor, [content])
    return predictor.id
