"""The HTTP contract, apart from kernels: uploads, datasets, jobs, lists, errors."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from obstore.exceptions import GenericError
from sqlalchemy.exc import OperationalError
from torchvision.models import squeezenet1_1

from service import problems
from service.api import fitting
from service.settings import Settings
from service.store import jobs
from service.store.database import Database
from tests.support.networks import dataset_file, npz, odd, resnet8, saved
from tests.support.stored import NOW

NETWORK = saved(resnet8(channels=3))
DATASET = dataset_file()


def upload(client: httpx.Client, content: bytes = NETWORK, name: str = "net.pt", **headers: str) -> httpx.Response:
    return client.post("/v1/checkpoints", files={"file": (name, content)}, headers=headers)


def new_job(client: httpx.Client, **fields: Any) -> httpx.Response:
    checkpoint = upload(client).json()["id"]
    return client.post("/v1/jobs", json={"checkpoint_id": checkpoint, **fields})


def is_problem(answer: httpx.Response, status: int, slug: str, named: str = "") -> bool:
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "instance"} <= body.keys()
    assert (answer.status_code, body["status"], body["type"]) == (status, status, f"/problems/{slug}"), body
    assert named in body["detail"], body["detail"]
    return True


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_upload_is_described(client: httpx.Client) -> None:
    answer = upload(client)
    found = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/checkpoints/{found['id']}"
    assert found["filename"] == "net.pt"
    assert found["size"] == len(NETWORK)
    assert found["sha256"] == hashlib.sha256(NETWORK).hexdigest()
    assert (found["format"], found["architecture"], found["candidates"]) == ("torch-zip", "cifar/resnet8", ["cifar/resnet8"])
    assert found["layers"][3] == {
        "index": 3, "name": "layer2.0.conv1.weight", "shape": [32, 16, 3, 3], "kernels": 512, "groups": 1,
    }  # fmt: skip
    assert {"name": "linear.bias", "shape": [10], "dtype": "F32"} in found["kept"]
    assert found["weights"] == 74_160
    assert client.get(answer.headers["location"]).json() == found
    file = client.get(f"{answer.headers['location']}/file")
    assert file.content == NETWORK


def test_a_blob_store_that_is_away_is_unavailable(client: httpx.Client) -> None:
    with patch("obstore.put_async", side_effect=GenericError("no route to host")):
        assert is_problem(upload(client), 503, "unavailable", "blob store")
    assert upload(client).status_code == 201


def test_an_upload_whose_row_is_refused_leaves_nothing_behind(app: FastAPI, client: httpx.Client, settings: Settings) -> None:
    with patch.object(app.state.context.intake, "_add", side_effect=OperationalError("INSERT", None, OSError("disk full"))):
        assert is_problem(upload(client), 503, "unavailable")
    assert not files(settings.data_dir / "blobs")


def test_a_checkpoint_that_was_stored_unheard_keeps_its_bytes(app: FastAPI, client: httpx.Client) -> None:
    intake = app.state.context.intake
    add = intake._add

    def lost(*arguments: Any) -> None:
        add(*arguments)
        raise OperationalError("COMMIT", None, ConnectionError("the server went away"))

    with patch.object(intake, "_add", lost):
        assert is_problem(upload(client), 503, "unavailable")
    again = upload(client)
    assert again.status_code == 200
    assert client.get(f"/v1/checkpoints/{again.json()['id']}/file").content == NETWORK


def test_the_raw_body_is_the_same_upload(client: httpx.Client) -> None:
    first = upload(client)
    again = client.post(
        "/v1/checkpoints?filename=other.pt", content=NETWORK, headers={"content-type": "application/octet-stream"}
    )
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()


def test_an_unknown_architecture_is_null(client: httpx.Client) -> None:
    found = upload(client, saved(odd())).json()
    assert (found["architecture"], found["candidates"]) == (None, [])
    assert {layer["groups"] for layer in found["layers"]} == {None}


def test_a_digest_is_verified(client: httpx.Client, settings: Settings) -> None:
    right, wrong = (base64.b64encode(hashlib.sha256(data).digest()).decode() for data in (NETWORK, b"other"))
    assert is_problem(upload(client, **{"Content-Digest": f"sha-256=:{wrong}:"}), 422, "digest-mismatch", "again")
    assert is_problem(upload(client, **{"Content-Digest": "sha-256=:x:"}), 400, "bad-request")
    assert files(settings.data_dir / "blobs") == files(settings.staging) == []
    assert upload(client, **{"Content-Digest": f"md5=:AAAA:, sha-256=:{right}:"}).status_code == 201


@pytest.mark.parametrize(
    ("content", "status", "slug"),
    [
        (b"", 422, "empty-file"),
        (NETWORK[:-100], 422, "truncated-file"),
        (b"\0" * 2_000_001, 413, "too-large"),
        (saved({"linear.weight": resnet8()["linear.weight"]}), 422, "no-convolutions"),
    ],
)
def test_nothing_of_a_refused_upload_stays(
    client: httpx.Client, settings: Settings, content: bytes, status: int, slug: str
) -> None:
    assert is_problem(upload(client, content), status, slug)
    assert is_problem(
        client.post("/v1/checkpoints", content=content, headers={"content-type": "application/octet-stream"}), status, slug
    )
    assert client.get("/v1/checkpoints").json()["items"] == []
    assert files(settings.data_dir / "blobs") == files(settings.staging) == []


def test_a_body_of_unknown_length_is_limited_too(client: httpx.Client, settings: Settings) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"\0" * 100_000

    answer = client.post("/v1/checkpoints", content=endless(), headers={"content-type": "application/octet-stream"})
    assert is_problem(answer, 413, "too-large", "2000000")
    assert files(settings.staging) == []


@pytest.mark.parametrize(
    ("content_type", "body", "status", "slug"),
    [
        ("text/plain", b"hello", 415, "unsupported-media-type"),
        ("multipart/form-data", b"hello", 400, "bad-request"),
        ("multipart/form-data; boundary=x", b"hello", 400, "bad-request"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\na\r\n--x--\r\n', 400,
         "bad-request"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nab', 400,
         "bad-request"),
    ],
)  # fmt: skip
def test_malformed_forms(client: httpx.Client, content_type: str, body: bytes, status: int, slug: str) -> None:
    assert is_problem(client.post("/v1/checkpoints", content=body, headers={"content-type": content_type}), status, slug)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\nets\\a.pt", "a.pt"),
        ("", "unnamed"),
        ("ä\u0007ö.pt", "äö.pt"),
        ("50%20.pt", "50%20.pt"),
    ],
)
def test_only_the_last_part_of_a_filename_is_kept(client: httpx.Client, name: str, expected: str) -> None:
    answer = client.post(
        "/v1/checkpoints", params={"filename": name}, content=NETWORK, headers={"content-type": "application/octet-stream"}
    )
    assert answer.json()["filename"] == expected


def test_what_forms_can_not_say_in_a_filename_is_read_as_they_write_it(client: httpx.Client) -> None:
    assert upload(client, name='the "best".pt').json()["filename"] == 'the "best".pt'


def test_a_dataset_is_described(client: httpx.Client) -> None:
    answer = client.post("/v1/datasets", params={"name": "CIFAR 10/100%20"}, files={"file": ("d.npz", DATASET)})
    found = answer.json()
    assert answer.status_code == 201
    assert {name: found[name] for name in ("name", "images", "height", "width", "channels", "classes")} == {
        "name": "CIFAR 10/100%20", "images": 40, "height": 8, "width": 8, "channels": 3, "classes": 10,
    }  # fmt: skip
    assert found["mean"] == [0.485, 0.456, 0.406]
    assert client.get(answer.headers["location"]).json() == found
    again = client.post("/v1/datasets", files={"file": ("d.npz", DATASET)})
    assert (again.status_code, again.json()["id"]) == (200, found["id"])


def test_normalisation_is_the_clients_or_that_of_the_images(client: httpx.Client) -> None:
    given = client.post("/v1/datasets", params={"mean": "0.5,0,0.25", "std": "1,2,3"}, files={"file": DATASET}).json()
    assert (given["mean"], given["std"]) == ([0.5, 0.0, 0.25], [1.0, 2.0, 3.0])
    grey = client.post("/v1/datasets", files={"file": dataset_file(channels=1)}).json()
    assert grey["mean"][0] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "params",
    [
        {"mean": "0.5"},
        {"mean": "0,0", "std": "1,1"},
        {"mean": "0,0,0", "std": "0,1,1"},
        {"mean": "x"},
        {"mean": "9" * 400 + ",0,0", "std": "1,1,1"},
        {"mean": "0,0,0", "std": "1e-50,1,1"},
        {"mean": "1e100,0,0", "std": "1,1,1"},
    ],
)
def test_a_normalisation_that_makes_no_sense_is_refused(client: httpx.Client, params: dict[str, str]) -> None:
    assert is_problem(client.post("/v1/datasets", params=params, files={"file": DATASET}), 422, "invalid")
    assert is_problem(client.post("/v1/datasets", files={"file": b"no"}), 422, "bad-dataset")


def test_deleting(client: httpx.Client, settings: Settings) -> None:
    dataset = client.post("/v1/datasets", files={"file": DATASET}).json()["id"]
    job = new_job(client, data={"dataset_id": dataset}).json()
    for path in (f"/v1/checkpoints/{job['checkpoint_id']}", f"/v1/datasets/{dataset}"):
        assert is_problem(client.delete(path), 409, "in-use")
    client.post(f"/v1/jobs/{job['id']}/cancel")
    for path in (f"/v1/checkpoints/{job['checkpoint_id']}", f"/v1/datasets/{dataset}"):
        assert client.delete(path).status_code == 204
        assert is_problem(client.get(path), 404, "not-found")
        assert is_problem(client.delete(path), 404, "not-found")
    assert files(settings.data_dir / "blobs") == []
    assert client.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    assert upload(client).status_code == 201


def test_a_job_echoes_its_configuration_resolved(client: httpx.Client) -> None:
    dataset = client.post("/v1/datasets", files={"file": DATASET}).json()["id"]
    answer = new_job(client, data={"dataset_id": dataset}, ratio=0.3, steps=None, hidden=None)
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["architecture"], job["data"], job["notes"]) == (
        "queued",
        "cifar/resnet8",
        {"dataset_id": dataset},
        [],
    )
    config = job["config"]
    assert (config["recipe"], config["steps"], config["reconstruction_steps"], config["seed"]) == ("decoupled", 3000, 2500, 0)
    assert config["hidden"] == 61
    assert client.get(answer.headers["location"]).json() == job


def test_recipes_have_their_own_defaults(client: httpx.Client) -> None:
    config = new_job(client, recipe="paper", data={"noise": "uniform"}).json()["config"]
    assert (config["base"], config["levels"], config["steps"], config["kernel_batch"]) == (0.76, 40, 68_600, 4096)
    config = new_job(client, recipe="regularised", data={"noise": "uniform"}).json()["config"]
    assert (config["recipe"], config["permutation"], config["smoothing_steps"]) == ("regularised", "none", 300)


def test_an_accuracy_target_leaves_the_size_open(client: httpx.Client) -> None:
    dataset = client.post("/v1/datasets", files={"file": DATASET}).json()["id"]
    answer = new_job(client, data={"dataset_id": dataset}, target={"drop": 0.5}, hidden=None)
    assert answer.status_code == 202
    config = answer.json()["config"]
    assert (config["target"], config["hidden"], config["ratio"]) == ({"drop": 0.5}, None, None)


def test_linear_layers_are_represented_on_request(client: httpx.Client) -> None:
    assert new_job(client, layers=["conv1.weight", "linear.weight"]).status_code == 202
    refused = new_job(client, layers=["linear.bias"])
    assert is_problem(refused, 422, "not-representable", "linear.bias")


def test_a_job_that_can_only_reconstruct_says_so(client: httpx.Client) -> None:
    job = new_job(client).json()
    assert "no data" in job["notes"][0]
    assert "importance" in new_job(client, importance=True).json()["notes"][1]
    unknown = upload(client, saved(odd())).json()["id"]
    job = client.post("/v1/jobs", json={"checkpoint_id": unknown, "data": {"noise": "normal"}}).json()
    assert "architecture is unknown" in job["notes"][0]
    assert job["config"]["reconstruction_steps"] == job["config"]["steps"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"hiden": 3}, "/hiden"),
        ({"hidden": 0}, "/hidden"),
        ({"hidden": 8, "ratio": 0.5}, ""),
        ({"steps": 10, "reconstruction_steps": 11}, ""),
        ({"recipe": "other"}, ""),
        ({"weight_decay": 0.1}, "/weight_decay"),
        ({"data": {"noise": "pink"}}, "/data/noise"),
        ({"data": {}}, "/data/dataset_id"),
        ({"data": {"noise": "normal", "dataset_id": "1"}}, "/data/dataset_id"),
        ({"architecture": "cifar/resnet9"}, "/architecture"),
        ({"layers": []}, "/layers"),
        ({"steps": True}, "/steps"),
        ({"target": {"drop": 0.5}}, "/target"),
        ({"target": {"drop": 0.5}, "data": {"noise": "matched"}}, "/target"),
        ({"target": {"drop": -1}}, "/target/drop"),
        ({"target": {"drop": "1"}}, "/target/drop"),
        ({"checkpoint_id": None}, "/checkpoint_id"),
        ({"architecture": "cifar/resnet20"}, "/architecture"),
        ({"target": {"drop": 1}, "hidden": 8}, ""),
        ({"recipe": "regularised"}, "/data"),
        ({"recipe": "regularised", "smoothing_steps": 0}, "/smoothing_steps"),
        ({"bits": 9}, "/bits"),
        ({"sparsity": 0.5}, ""),
        ({"synthesised_images": 1_000_000, "data": {"noise": "matched"}}, "/synthesised_images"),
        ({"seed": "1"}, "/seed"),
    ],
)
def test_invalid_fields_are_pointed_at(client: httpx.Client, fields: dict[str, Any], pointer: str) -> None:
    answer = new_job(client, **fields)
    assert is_problem(answer, 422, "invalid")
    assert all(error["detail"] for error in answer.json()["errors"])
    assert {error["pointer"] for error in answer.json()["errors"]} == {pointer}


def test_of_many_errors_the_first_are_described(client: httpx.Client) -> None:
    answer = new_job(client, **{f"field{number}": 1 for number in range(300)})
    assert is_problem(answer, 422, "invalid", "and 299 more")
    assert len(answer.json()["errors"]) == 20
    wrong_names = new_job(client, layers=[1] * 3000)
    assert {error["pointer"] for error in wrong_names.json()["errors"]} == {"/layers", "/layers/0"}
    wrong_coordinates = client.post("/v1/predictors/nope/kernels", json={"coordinates": [[]] * 3000})
    missing = [error["pointer"] for error in wrong_coordinates.json()["errors"]]
    assert missing == ["/coordinates/0/0", "/coordinates/0/1", "/coordinates/0/2"]


def test_a_job_without_a_body_is_invalid(client: httpx.Client) -> None:
    assert is_problem(client.post("/v1/jobs", headers={"content-type": "application/json"}), 422, "invalid", "the body")


def test_data_that_cannot_be_those_of_the_network_is_refused(client: httpx.Client) -> None:
    def with_dataset(content: bytes) -> httpx.Response:
        dataset = client.post("/v1/datasets", files={"file": content}).json()["id"]
        return new_job(client, data={"dataset_id": dataset})

    image = np.zeros((1, 8, 8, 3), np.uint8)
    assert is_problem(with_dataset(npz(images=image)), 422, "invalid", "the dataset has 1 image; at least 2")
    assert is_problem(with_dataset(dataset_file(channels=1)), 422, "invalid", "1 channels, but the network takes 3")
    strange = npz(images=image.repeat(2, 0), labels=np.array([0, 15]))
    assert is_problem(with_dataset(strange), 422, "invalid", "a label is 15, but the network has only 10 classes")
    with pytest.raises(problems.Invalid, match="no batch norm"):
        fitting.check("torchvision/squeezenet1_1", squeezenet1_1(weights=None).state_dict(), None, "matched", 1)


def test_a_job_that_will_not_distil_says_so(client: httpx.Client) -> None:
    for fields in ({"steps": 2}, {"recipe": "paper", "feature_map_weight": 0, "logit_weight": 0}):
        (note,) = new_job(client, data={"noise": "normal"}, **fields).json()["notes"]
        assert "nothing is distilled" in note


def test_an_option_of_another_recipe_is_said_to_be_missing_in_this_one(client: httpx.Client) -> None:
    assert "decoupled has no such field" in new_job(client, weight_decay=0.1).json()["detail"]
    assert "paper has no such field" in new_job(client, recipe="paper", bits=8).json()["detail"]
    both = new_job(client, data={"noise": "normal", "dataset_id": "1"})
    assert "noise source has no such field" in both.json()["detail"]


def test_a_job_for_what_does_not_exist(client: httpx.Client) -> None:
    assert is_problem(client.post("/v1/jobs", json={"checkpoint_id": "nope"}), 404, "not-found", "nope")
    assert is_problem(new_job(client, data={"dataset_id": "nope"}), 404, "not-found", "nope")
    assert is_problem(new_job(client, layers=["nope.weight"]), 422, "not-representable", "nope.weight")
    too_many = new_job(client, recipe="paper", reconstruction_steps=100_000)
    assert is_problem(too_many, 422, "invalid", "must not exceed steps")


def test_an_idempotency_key_creates_one_job(client: httpx.Client) -> None:
    checkpoint = upload(client).json()["id"]
    made = [
        client.post("/v1/jobs", json={"checkpoint_id": checkpoint, "seed": seed}, headers={"Idempotency-Key": key})
        for key, seed in [("a", 0), ("a", 0), ("b", 0), ("a", 1)]
    ]
    assert [answer.status_code for answer in made] == [202, 202, 202, 422]
    assert made[0].json()["id"] == made[1].json()["id"] != made[2].json()["id"]
    assert is_problem(made[3], 422, "idempotency-key-reused")


def test_text_that_is_no_unicode_is_refused(client: httpx.Client) -> None:
    checkpoint = upload(client).json()["id"]
    for field in ('"architecture":"\\ud800"', '"layers":["\\ud800"]', '"data":{"dataset_id":"\\ud800"}'):
        body = f'{{"checkpoint_id":"{checkpoint}",{field}}}'
        answer = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 404, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    assert is_problem(client.post("/v1/jobs", json={}, headers={"Idempotency-Key": ""}), 422, "invalid")


def test_cancelling(client: httpx.Client, database: Database) -> None:
    id = new_job(client).json()["id"]
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    failed = new_job(client, seed=1).json()["id"]
    finish(database, failed, "failed")
    assert is_problem(client.post(f"/v1/jobs/{failed}/cancel"), 409, "impossible-in-this-state", "failed")
    assert is_problem(client.post("/v1/jobs/nope/cancel"), 404, "not-found")


def finish(database: Database, id: str, state: Any) -> None:
    with database.write() as session:
        lease = jobs.claim(session, owner="test", now=NOW, lease=NOW - NOW, prefer=id)
        assert lease is not None
        jobs.finish(session, lease, state, now=NOW, error={"type": "t", "detail": "d"})


def test_events_as_pages(client: httpx.Client, database: Database) -> None:
    id = new_job(client).json()["id"]
    finish(database, id, "failed")
    first = client.get(f"/v1/jobs/{id}/events", params={"limit": 2}).json()
    assert [(event["number"], event["kind"], event["data"]["state"]) for event in first["items"]] == [
        (1, "state", "queued"), (2, "state", "running"),
    ]  # fmt: skip
    rest = client.get(f"/v1/jobs/{id}/events", params={"cursor": first["next_cursor"]}).json()
    assert [event["data"]["state"] for event in rest["items"]] == ["failed"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(("last", "expected"), [(None, ["1", "2", "3"]), ("2", ["3"]), ("3", [])])
def test_events_as_a_stream_end_with_the_job(
    client: httpx.Client, database: Database, last: str | None, expected: list[str]
) -> None:
    id = new_job(client).json()["id"]
    headers = {"accept": "text/event-stream", **({"last-event-id": last} if last else {})}
    with client.stream("GET", f"/v1/jobs/{id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        next(lines)
        # The stream is open, and only now the job ends.
        finish(database, id, "failed")
        received = list(lines)
    assert [line.removeprefix("id: ") for line in received if line.startswith("id: ")] == expected
    data = [json.loads(line.removeprefix("data: ")) for line in received if line.startswith("data: ")]
    if expected:
        assert data[-1] == {"state": "failed", "error": {"type": "t", "detail": "d"}}
    again = client.get(f"/v1/jobs/{id}/events", headers={"accept": "text/event-stream", "last-event-id": "3"})
    assert again.status_code == 204, "browsers connect again until they are told that there is no more"


def test_lists_are_newest_first_in_pages(client: httpx.Client) -> None:
    made = [new_job(client, seed=seed).json()["id"] for seed in range(3)]
    first = client.get("/v1/jobs", params={"limit": 2}).json()
    second = client.get("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [job["id"] for job in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None
    client.post(f"/v1/jobs/{made[0]}/cancel")
    assert [job["id"] for job in client.get("/v1/jobs", params={"state": "cancelled"}).json()["items"]] == [made[0]]
    assert client.get("/v1/jobs", params={"limit": 1000}).status_code == 200
    assert is_problem(client.get("/v1/jobs", params={"limit": 0}), 422, "invalid")
    assert is_problem(client.get("/v1/jobs", params={"cursor": "%%%"}), 422, "invalid", "cursor")
    assert is_problem(client.get("/v1/jobs", params={"cursor": "YWJj"}), 422, "invalid", "cursor")
    assert is_problem(client.get("/v1/jobs", params={"state": "asleep"}), 422, "invalid")


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "slug"),
    [
        ("GET", "/nowhere", {}, 404, "not-found"),
        ("GET", "/v1/checkpoints/nope", {}, 404, "not-found"),
        ("GET", "/v1/checkpoints/nope/file", {}, 404, "not-found"),
        ("GET", "/v1/datasets/nope", {}, 404, "not-found"),
        ("GET", "/v1/jobs/nope", {}, 404, "not-found"),
        ("GET", "/v1/jobs/nope/events", {}, 404, "not-found"),
        ("GET", "/problems/nope", {}, 404, "not-found"),
        ("PUT", "/v1/jobs", {}, 405, "method-not-allowed"),
        ("POST", "/v1/jobs", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "bad-request"),
        ("POST", "/v1/jobs", {"content": b"a=1"}, 415, "unsupported-media-type"),
        ("POST", "/v1/jobs", {"json": [1]}, 422, "invalid"),
        ("POST", "/v1/jobs", {"json": {}}, 422, "invalid"),
        ("POST", "/v1/jobs", {"json": {"x": "y" * 30_000}}, 413, "too-large"),
        ("POST", "/v1/checkpoints", {"files": {"other": b"x"}}, 400, "bad-request"),
        ("GET", "/v1/jobs/nope/events", {"headers": {"last-event-id": "x"}}, 422, "invalid"),
        ("GET", "/v1/jobs/nope/events", {"headers": {"last-event-id": "9" * 30}}, 422, "invalid"),
    ],
)
def test_every_error_has_the_same_shape(
    client: httpx.Client, method: str, path: str, options: dict[str, Any], status: int, slug: str
) -> None:
    assert is_problem(client.request(method, path, **options), status, slug)


def test_a_chunked_body_over_the_limit(client: httpx.Client) -> None:
    answer = client.post("/v1/jobs", content=iter([b"{" + b" " * 15_000] * 3), headers={"content-type": "application/json"})
    assert is_problem(answer, 413, "too-large")


def test_faults_say_nothing_about_the_inside(app: FastAPI, client: httpx.Client) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("SELECT secret FROM /etc/passwd")

    answer = client.get("/broken")
    assert is_problem(answer, 500, "internal")
    assert "secret" not in answer.text


def test_problems_are_documented_where_their_type_points(client: httpx.Client) -> None:
    kinds = client.get("/problems").json()
    assert {kind["type"] for kind in kinds} == {f"/problems/{slug}" for slug in problems.KINDS}
    for kind in kinds:
        assert client.get(kind["type"]).json() == kind
        assert kind["description"]


def test_health(client: httpx.Client, database: Database) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"database": "ok", "schema": "ok", "broker": "ok", "blobs": "ok"}
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 200
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    answer = client.get("/readyz")
    assert is_problem(answer, 503, "unavailable", "schema")
    assert answer.json()["checks"]["schema"] == "SchemaOutdated"
