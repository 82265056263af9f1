"""Two nodes whose processors differ, over one database."""

from itertools import combinations
from pathlib import Path

import httpx

from service.store import migrate
from service.store.database import Database
from tests.support.networks import resnet8
from tests.support.processes import serving
from tests.support.stored import store_predictor
from tests.support.waiting import DEADLINE_SECONDS


def test_two_kinds_of_nodes_share_no_etag_of_rebuilt_weights(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.sqlite3'}"
    database = Database(url)
    migrate.upgrade(database)
    id = store_predictor(database, resnet8())
    database.close()
    etags, files, weights = [], [], []
    # The last one is a node of the first kind again.
    for number, processor in enumerate([{}, {"ATEN_CPU_CAPABILITY": "default"}, {"MKL_CBWR": "COMPATIBLE"}, {}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with serving(folder, {"NERN_DATABASE_URL": url, **processor}, "--no-worker") as (address, _):
            answer = httpx.get(f"{address}/v1/predictors/{id}/weights", timeout=DEADLINE_SECONDS)
            assert (
                httpx.head(f"{address}/v1/predictors/{id}/weights", timeout=DEADLINE_SECONDS).headers["etag"]
                == answer.headers["etag"]
            )
            files.append(httpx.get(f"{address}/v1/predictors/{id}/file", timeout=DEADLINE_SECONDS).headers["etag"])
        assert answer.status_code == 200
        etags.append(answer.headers["etag"])
        weights.append(answer.content)
    assert etags[0] == etags[3] != etags[1]
    for ours, theirs in combinations(range(4), 2):
        assert etags[ours] != etags[theirs] or weights[ours] == weights[theirs], (ours, theirs)
    assert len(set(files)) == 1, "the artefact's bits are stored, so they are the same everywhere"
