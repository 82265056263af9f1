"""A job that was queued by release 0.1.0 is done by this one."""

import asyncio
import json
import shutil
from pathlib import Path

from service.store import blobs, migrate
from service.store.blobs import MARK, Blobs
from service.store.marking import mark
from service.store.tables import Predictor
from tests.support.place import Place

FOLDER = Path(__file__).parent.parent / "data" / "release-0.1.0"


def test_jobs_that_release_0_1_0_has_queued_are_done(place: Place) -> None:
    expected = json.loads((FOLDER / "expected.json").read_text())
    place.database.close()
    shutil.copy(FOLDER / "nern.sqlite3", place.settings.data_dir / "nern.sqlite3")
    migrate.upgrade(place.database)
    key = blobs.checkpoint_tensors(expected["tiny_checkpoint"])
    store = Blobs(place.settings.blobs)
    asyncio.run(store.put(key, FOLDER / "tiny-tensors.safetensors"))
    # The release had no mark. The first start of this one marks the blob store, because it has the newest checkpoint.
    store.remove(MARK)
    mark(place.database, store)
    for id in expected["queued"]:
        assert place.worker.work()
        job = place.job(id)
        assert (job.state, job.error) == ("succeeded", None)
        with place.database.read() as session:
            predictor = session.get_one(Predictor, job.predictor_id)
        # What the job echoed when it was made is what was done.
        assert predictor.config == job.config | {"objective": None}  # an option that this release has added
    assert not place.worker.work()
