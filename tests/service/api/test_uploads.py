"""The HTTP contract: checkpoints and datasets."""

import base64
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import httpx
import pytest
from fastapi import FastAPI
from obstore.exceptions import GenericError
from sqlalchemy.orm import Session

from service.settings import Settings
from service.store import blobs, checkpoints
from service.store.database import Away
from service.store.tables import Checkpoint
from service.uploads.multipart import FORM_BYTES, MAX_OTHER_PARTS
from service.uploads.staging import clear_abandoned
from tests.support.calls import DATASET, NETWORK, files, is_problem, new_job, upload
from tests.support.networks import dataset_file, odd, resnet8, saved


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


def test_a_download_from_a_blob_store_that_is_away_is_unavailable(client: httpx.Client) -> None:
    url = f"/v1/checkpoints/{upload(client).json()['id']}/file"
    with patch("obstore.get", side_effect=GenericError("no route to host")):
        assert is_problem(client.get(url), 503, "unavailable", "blob store")
    answer = client.get(url)
    assert answer.content == NETWORK
    names = ("content-length", "etag", "content-disposition", "content-type")
    assert [answer.headers[name] for name in names] == [
        str(len(NETWORK)), f'"{hashlib.sha256(NETWORK).hexdigest()}"', "attachment", "application/octet-stream",
    ]  # fmt: skip


def test_an_upload_whose_row_is_refused_leaves_nothing_behind(app: FastAPI, client: httpx.Client, settings: Settings) -> None:
    with patch.object(app.state.context.database, "write", side_effect=Away("disk full")):
        assert is_problem(upload(client), 503, "unavailable")
    assert not files(settings.data_dir / "blobs")


def test_a_checkpoint_that_was_stored_unheard_keeps_its_bytes(app: FastAPI, client: httpx.Client) -> None:
    database = app.state.context.database
    write = database.write

    @contextmanager
    def lost() -> Iterator[Session]:
        with write() as session:
            yield session
        raise Away("the server went away")

    with patch.object(database, "write", lost):
        assert is_problem(upload(client), 503, "unavailable")
    again = upload(client)
    assert again.status_code == 200
    assert client.get(f"/v1/checkpoints/{again.json()['id']}/file").content == NETWORK


def test_of_two_uploads_of_the_same_bytes_at_the_same_time_one_is_kept(client: httpx.Client, settings: Settings) -> None:
    first, find, looks = upload(client), checkpoints.with_hash, 0

    def too_early(session: Session, sha256: str, key: str | None) -> Checkpoint | None:
        """Before the other upload has written its row, when it is looked for before the inspection and before the insert."""
        nonlocal looks
        looks += 1
        return find(session, sha256, key) if looks > 2 else None

    with patch.object(checkpoints, "with_hash", too_early):
        second = upload(client)
    assert looks == 3
    assert (second.status_code, second.json()["id"]) == (200, first.json()["id"])
    assert len(files(settings.data_dir / "blobs")) == 2
    assert client.get(f"/v1/checkpoints/{first.json()['id']}/file").content == NETWORK


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
    assert is_problem(upload(client, headers={"Content-Digest": f"sha-256=:{wrong}:"}), 422, "digest-mismatch", "again")
    for malformed in ("sha-256=:x:", "sha-256=:AAAA:", "sha-256=AAAA"):
        assert is_problem(upload(client, headers={"Content-Digest": malformed}), 400, "bad-request", "Content-Digest")
    assert files(settings.data_dir / "blobs") == files(settings.staging) == []
    assert upload(client, headers={"Content-Digest": f"md5=:AAAA:, sha-256=:{right}:"}).status_code == 201


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


def part(headers: str, content: str = "a") -> str:
    return f"--x\r\n{headers}\r\n\r\n{content}\r\n"


FILE, OTHER = 'Content-Disposition: form-data; name="file"; filename="a"', 'Content-Disposition: form-data; name="other"'


@pytest.mark.parametrize(
    ("parts", "detail"),
    [
        ([part(FILE), part(FILE)], "two files of the name"),
        ([part(OTHER)] * (MAX_OTHER_PARTS + 1) + [part(FILE)], "more than 16 other parts"),
        ([part(OTHER, "a" * FORM_BYTES), part(FILE)], "must be called `file`, and there is a part `other`"),
        ([part(f"X-Long: {'a' * FORM_BYTES}")], "the form"),
        (["\r\n" * FORM_BYTES, part(FILE)], "bytes beside its files"),
        ([part(FILE), "--x--\r\n", "a" * FORM_BYTES], "bytes beside its files"),
    ],
    ids=["two files of one name", "many parts", "a large part", "a long header", "a preamble", "an epilogue"],
)
def test_forms_with_more_than_a_file_are_bounded(client: httpx.Client, parts: list[str], detail: str) -> None:
    body = "".join(parts) + "--x--\r\n"
    answer = client.post("/v1/checkpoints", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert is_problem(answer, 400, "bad-request", detail)


def test_a_form_may_have_some_bytes_behind_its_last_boundary(client: httpx.Client) -> None:
    body = f"{part(FILE)}--x--\r\n{'a' * 1000}"
    answer = client.post("/v1/checkpoints", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert is_problem(answer, 422, "not-a-checkpoint")


def test_a_part_of_another_name_is_named(client: httpx.Client) -> None:
    answer = client.post("/v1/checkpoints", files={"files": ("net.pt", NETWORK[:1000])})
    assert is_problem(answer, 400, "bad-request", "the form has no part `file`, but a part `files`")


def test_a_form_may_have_other_parts_beside_its_file(client: httpx.Client) -> None:
    answer = client.post("/v1/checkpoints", files={"file": ("net.pt", NETWORK)}, data={"comment": "mine"})
    assert (answer.status_code, answer.json()["filename"]) == (201, "net.pt")


def test_what_killed_processes_left_of_uploads_is_removed_after_a_day(settings: Settings) -> None:
    for name, hours in [("old", 25), ("new", 23)]:
        (settings.staging / name).mkdir(parents=True)
        (settings.staging / name / "upload").touch()
        os.utime(settings.staging / name, (0, time.time() - hours * 3600))
    clear_abandoned(settings)
    assert [path.name for path in settings.staging.iterdir()] == ["new"]


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


def test_bytes_that_are_lost_are_named_and_an_upload_heals_them(client: httpx.Client, settings: Settings) -> None:
    blob_folder = settings.data_dir / "blobs"
    dataset = client.post("/v1/datasets", files={"file": DATASET}).json()["id"]
    job = new_job(client, data={"dataset_id": dataset})
    checkpoint = job.json()["checkpoint_id"]
    wanted = {"checkpoint_id": checkpoint, "data": {"dataset_id": dataset}, "steps": 5}
    for kind, key in (
        ("checkpoints", blobs.checkpoint_file(checkpoint)),
        ("checkpoints", blobs.checkpoint_tensors(checkpoint)),
        ("datasets", blobs.dataset_tensors(dataset)),
    ):
        content = (blob_folder / key).read_bytes()
        (blob_folder / key).unlink()
        if key.endswith("original"):
            assert is_problem(client.get(f"/v1/checkpoints/{checkpoint}/file"), 410, "lost", "upload the same file again")
        else:
            assert is_problem(client.post("/v1/jobs", json=wanted), 410, "lost", "upload the same file again")
        again = upload(client) if kind == "checkpoints" else client.post("/v1/datasets", files={"file": DATASET})
        assert (again.status_code, again.json()["id"]) == (200, checkpoint if kind == "checkpoints" else dataset)
        assert (blob_folder / key).read_bytes() == content
    assert client.get(f"/v1/checkpoints/{checkpoint}/file").content == NETWORK
    assert client.post("/v1/jobs", json=wanted).status_code == 202


def test_a_job_is_accepted_while_the_blob_store_is_away(client: httpx.Client) -> None:
    checkpoint = upload(client).json()["id"]
    with patch("obstore.head", side_effect=GenericError("no route to host")):
        assert client.post("/v1/jobs", json={"checkpoint_id": checkpoint}).status_code == 202
