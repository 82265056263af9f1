"""What release 0.1.0 stored is answered as that release answered it."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import safetensors.torch
import torch

from service.settings import Settings
from service.store import checkpoints, migrate
from service.store.database import Database
from tests.support.representations import opened
from tests.support.schemas import answer_schema, undocumented

RELEASE = Path(__file__).parents[2] / "data/release-0.1.0"
EXPECTED: dict[str, Any] = json.loads((RELEASE / "expected.json").read_text())
PREDICTORS = {name: EXPECTED[name]["predictor_id"] for name in ("half", "coded", "target", "paper")}


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The server's database, as release 0.1.0 left it, migrated."""
    settings.data_dir.mkdir()
    shutil.copy(RELEASE / "nern.sqlite3", settings.data_dir)
    database = Database(settings.database)
    migrate.upgrade(database)
    yield database
    database.close()


def stored(query: str) -> list[Any]:
    """Rows of the database, without anything of ours between."""
    connection = sqlite3.connect(f"file:{RELEASE / 'nern.sqlite3'}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def exactly(value: Any) -> str:
    """Two values are written alike if they are the same, whole numbers and fractions told apart."""
    return json.dumps(value, sort_keys=True)


# Fields of jobs that this release has added.
ADDED = {"owner": "", "network": None, "priority": 0, "worker": None, "webhook": None}


def test_jobs_and_their_events(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    listed = {job["id"]: job for job in client.get("/v1/jobs").json()["items"]}
    assert listed.keys() == {job["id"] for job in EXPECTED["jobs"]}
    events = stored("SELECT job_id, number, kind, data FROM job_event ORDER BY job_id, number")
    assert len(events) > 40
    for job in EXPECTED["jobs"]:
        url = f"/v1/jobs/{job['id']}"
        answer = client.get(url).json()
        assert exactly(answer) == exactly(listed[job["id"]])
        assert exactly(answer) == exactly(
            {**job, "owner": "", "network": None, "priority": 0, "worker": None, "webhook": None}
        )  # fields that this release has added
        assert undocumented(answer, answer_schema(document, "/v1/jobs/{id}"), document) == []
        answer = client.get(f"{url}/events", params={"limit": 200}).json()
        assert [(event["number"], event["kind"], exactly(event["data"])) for event in answer["items"]] == [
            (number, kind, exactly(json.loads(data))) for id, number, kind, data in events if id == job["id"]
        ]
        assert undocumented(answer, answer_schema(document, "/v1/jobs/{id}/events"), document) == []


def test_predictors_with_their_reports(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    rows = {id: (report, config) for id, report, config in stored("SELECT id, report, config FROM predictor")}
    assert rows.keys() == set(PREDICTORS.values())
    listed = {item["id"]: item for item in client.get("/v1/predictors").json()["items"]}
    for id, (report, config) in rows.items():
        answer = client.get(f"/v1/predictors/{id}").json()
        assert exactly(answer["report"]) == exactly(json.loads(report))
        assert exactly(answer["config"]) == exactly(json.loads(config))
        assert exactly(answer) == exactly(listed[id])
        assert undocumented(answer, answer_schema(document, "/v1/predictors/{id}"), document) == []
        for figure in ("layers", "bytes"):
            assert client.get(f"/v1/predictors/{id}/figures/{figure}.svg").status_code == 200


@pytest.mark.parametrize("name", PREDICTORS)
def test_artefacts_and_what_is_rebuilt_from_them(client: httpx.Client, name: str) -> None:
    url, content = f"/v1/predictors/{PREDICTORS[name]}", (RELEASE / f"{name}.safetensors").read_bytes()
    file = client.get(f"{url}/file")
    assert file.content == content
    assert file.headers["etag"] == f'"{client.get(url).json()["sha256"]}"'
    weights = client.get(f"{url}/weights").content
    assert len(weights) == EXPECTED[name]["weights_bytes"]
    rebuilt, ours = opened(content).state_dict(), safetensors.torch.load(weights)
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert [name for name in header if name != "__metadata__"] == list(rebuilt)
    for tensor_name, tensor in rebuilt.items():
        torch.testing.assert_close(ours[tensor_name], tensor)
    kernel = EXPECTED[name]["kernel"]
    [found] = client.post(f"{url}/kernels", json={"coordinates": [kernel["coordinate"]]}).json()["kernels"]
    assert found["coordinate"] == kernel["coordinate"]
    # The last bits depend on the processor.
    assert torch.allclose(torch.tensor(found["weights"]), torch.tensor(kernel["weights"]), rtol=1e-4, atol=1e-6)


def test_datasets(client: httpx.Client) -> None:
    columns = "id, name, size, sha256, images, height, width, channels, classes, mean, std"
    [row] = stored(f"SELECT {columns} FROM dataset")  # noqa: S608
    expected = dict(zip(columns.split(", "), row, strict=True))
    expected |= {name: json.loads(expected[name]) for name in ("mean", "std")}
    answer = client.get(f"/v1/datasets/{expected['id']}").json()
    assert exactly({name: answer[name] for name in expected}) == exactly(expected)
    shape = [expected[name] for name in ("images", "height", "width", "channels")]
    assert (answer["kind"], answer["class_names"], answer["notes"]) == ("images", None, [])
    assert answer["inputs"] == [{"name": "images", "dtype": "U8", "shape": shape}]
    assert answer["labels"] == {"kind": "classes", "dtype": "I64", "shape": shape[:1]}
    assert client.get("/v1/datasets").json()["items"] == [answer]
    document = client.get("/openapi.json").json()
    assert undocumented(answer, answer_schema(document, "/v1/datasets/{id}"), document) == []


def test_checkpoints_and_the_upload_of_the_same_bytes(client: httpx.Client, database: Database) -> None:
    [(id, sha256), *_] = stored("SELECT id, sha256 FROM checkpoint")
    answer = client.get(f"/v1/checkpoints/{id}").json()
    assert (answer["key"], answer["keys"], answer["notes"], answer["aliases"]) == ("", [], [], {})
    with database.read() as session:
        found = checkpoints.with_hash(session, sha256, None)
        assert found is not None
        assert found.id == id
        assert checkpoints.with_hash(session, sha256, "state_dict") is None
