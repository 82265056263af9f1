"""The HTTP contract: resumable uploads in the protocol tus 1.0."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from unittest.mock import patch as replaced

import httpx
import pytest
from fastapi import FastAPI
from obstore.exceptions import GenericError

from service import problems
from service.settings import Settings
from service.uploads.intake import Intake
from tests.support.calls import DATASET, NETWORK, files, is_problem, upload
from tests.support.tus import BYTES, RESUMABLE, begin, checksum, create, head, metadata, offset, patch

HALF = len(NETWORK) // 2


def test_the_service_tells_what_it_speaks(client: httpx.Client) -> None:
    answer = client.options("/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-resumable"] == answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-max-size"] == "2000000"
    assert set(answer.headers["tus-extension"].split(",")) == {
        "creation", "creation-with-upload", "creation-defer-length", "checksum", "expiration", "termination",
    }  # fmt: skip
    assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256"


def test_a_file_that_arrives_in_pieces_becomes_a_checkpoint(client: httpx.Client, settings: Settings) -> None:
    created = create(client, len(NETWORK))
    address = created.headers["location"]
    assert (created.status_code, created.headers["upload-offset"], created.text) == (201, "0", "")
    first = patch(client, address, 0, NETWORK[:HALF])
    assert (first.status_code, first.headers["upload-offset"], first.text) == (204, str(HALF), "")
    told = head(client, address)
    assert (told.status_code, told.text) == (200, "")
    assert told.headers["cache-control"] == "no-store"
    assert {name: told.headers[name] for name in ("tus-resumable", "upload-offset", "upload-length", "upload-metadata")} == {
        "tus-resumable": "1.0.0", "upload-offset": str(HALF), "upload-length": str(len(NETWORK)),
        "upload-metadata": metadata(kind="checkpoint", filename="net.pt"),
    }  # fmt: skip
    last = patch(client, address, HALF, NETWORK[HALF:])
    assert (last.status_code, last.headers["upload-offset"]) == (204, str(len(NETWORK)))
    made = client.get(last.headers["nern-resource"]).json()
    assert (made["filename"], made["sha256"]) == ("net.pt", hashlib.sha256(NETWORK).hexdigest())
    assert client.get(f"{last.headers['nern-resource']}/file").content == NETWORK
    shown = client.get(address).json()
    assert (shown["state"], shown["offset"], shown["resource"]) == ("done", len(NETWORK), last.headers["nern-resource"])
    assert head(client, address).headers["nern-resource"] == last.headers["nern-resource"]
    assert not files(settings.data_dir / "blobs" / "uploads")
    assert not files(settings.staging)


def test_it_becomes_the_checkpoint_that_an_ordinary_upload_gives(client: httpx.Client) -> None:
    ordinary = upload(client)
    created = create(client, len(NETWORK), content=NETWORK)
    assert created.headers["nern-resource"] == ordinary.headers["location"]


def test_it_becomes_a_dataset_with_the_parameters_of_the_other_route(client: httpx.Client) -> None:
    values = {"name": "mine", "mean": "0.5,0,0.25", "std": "1,2,3"}
    created = create(client, len(DATASET), "dataset", DATASET[:100], values=values)
    assert (created.status_code, created.headers["upload-offset"]) == (201, "100")
    last = patch(client, created.headers["location"], 100, DATASET[100:])
    made = client.get(last.headers["nern-resource"]).json()
    assert (made["name"], made["mean"], made["std"], made["images"]) == ("mine", [0.5, 0.0, 0.25], [1.0, 2.0, 3.0], 40)
    plain = create(client, len(DATASET), "dataset", DATASET)
    assert client.get(plain.headers["nern-resource"]).json()["mean"] == [0.485, 0.456, 0.406]


def test_a_refused_file_ends_the_upload_with_its_problem(client: httpx.Client, settings: Settings) -> None:
    content = NETWORK[:-100]
    address = begin(client, len(content))
    assert patch(client, address, 0, content[:500]).status_code == 204
    for start in (500, len(content)):
        refused = patch(client, address, start, content[start:])
        assert is_problem(refused, 422, "truncated-file")
        assert refused.headers["tus-resumable"] == "1.0.0"
    assert head(client, address).status_code == 422
    shown = client.get(address).json()
    assert (shown["state"], shown["resource"]) == ("refused", None)
    assert shown["problem"] == {name: refused.json()[name] for name in ("type", "title", "status", "detail")}
    assert is_problem(create(client, len(content), content=content), 422, "truncated-file")
    assert not files(settings.data_dir / "blobs")


@pytest.mark.parametrize("version", [None, "0.2.2", "2.0.0"])
def test_another_version_of_the_protocol_is_refused(client: httpx.Client, version: str | None) -> None:
    address = begin(client, 10)
    headers = {**BYTES, "Upload-Offset": "0", "Upload-Length": "10"} | ({"Tus-Resumable": version} if version else {})
    for method, path in [("POST", "/v1/uploads"), ("PATCH", address), ("DELETE", address)]:
        answer = client.request(method, path, headers=headers, content=b"abc")
        assert is_problem(answer, 412, "unsupported-version", "1.0.0")
        assert answer.headers["tus-version"] == "1.0.0"
    assert client.head(address, headers=headers).status_code == 412
    assert offset(client, address) == 0


def test_only_the_next_byte_is_taken(client: httpx.Client) -> None:
    address = begin(client, len(NETWORK))
    patch(client, address, 0, NETWORK[:HALF])
    for wrong in (0, HALF - 1, HALF + 1, len(NETWORK)):
        answer = patch(client, address, wrong, NETWORK[wrong:])
        assert is_problem(answer, 409, "offset-conflict", str(HALF))
        assert answer.headers["upload-offset"] == str(HALF)
    assert patch(client, address, HALF, b"").status_code == 204
    assert patch(client, address, HALF, NETWORK[HALF:]).status_code == 204


def test_a_body_of_another_type_is_refused(client: httpx.Client) -> None:
    address = begin(client, 10)
    for headers in ({"Content-Type": "application/octet-stream"}, {"Content-Type": ""}):
        assert is_problem(patch(client, address, 0, b"abc", **headers), 415, "unsupported-media-type", "offset+octet-stream")
        assert is_problem(create(client, 10, content=b"abc", headers=headers), 415, "unsupported-media-type")


def test_a_file_over_the_limit_is_refused_before_a_byte_is_sent(client: httpx.Client) -> None:
    assert is_problem(create(client, 2_000_001), 413, "too-large", "2000000")
    assert create(client, 2_000_000).status_code == 201


def test_more_bytes_than_announced_are_refused(client: httpx.Client) -> None:
    address = begin(client, 10)
    assert is_problem(patch(client, address, 0, b"x" * 11), 413, "too-large", "10")

    def unknown_length() -> Iterator[bytes]:
        yield b"x" * 6
        yield b"x" * 6

    assert is_problem(patch(client, address, 0, unknown_length()), 413, "too-large", "10")
    assert offset(client, address) == 0
    assert is_problem(create(client, 3, content=b"abcd"), 413, "too-large")


def test_an_empty_file_is_refused_at_once(client: httpx.Client) -> None:
    assert is_problem(create(client, 0), 422, "empty-file")


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_bytes_whose_checksum_differs_are_not_kept(client: httpx.Client, settings: Settings, algorithm: str) -> None:
    address = begin(client, len(NETWORK))
    assert patch(client, address, 0, NETWORK[:HALF], **checksum(NETWORK[:HALF], algorithm)).status_code == 204
    before = files(settings.data_dir / "blobs")
    wrong = patch(client, address, HALF, NETWORK[HALF:], **checksum(b"other", algorithm))
    assert is_problem(wrong, 460, "checksum-mismatch", algorithm)
    assert offset(client, address) == HALF
    assert files(settings.data_dir / "blobs") == before
    right = patch(client, address, HALF, NETWORK[HALF:], **checksum(NETWORK[HALF:], algorithm))
    assert client.get(f"{right.headers['nern-resource']}/file").content == NETWORK
    assert is_problem(create(client, 3, content=b"abc", headers=checksum(b"xyz", algorithm)), 460, "checksum-mismatch")


def test_the_size_may_be_told_later(client: httpx.Client) -> None:
    address = create(client, None, content=NETWORK[:HALF]).headers["location"]
    told = head(client, address)
    assert told.headers["upload-defer-length"] == "1"
    assert "upload-length" not in told.headers
    assert is_problem(patch(client, address, HALF, b"", **{"Upload-Length": "2000001"}), 413, "too-large")
    assert is_problem(patch(client, address, HALF, b"", **{"Upload-Length": "10"}), 413, "too-large")
    assert patch(client, address, HALF, NETWORK[HALF:]).headers.get("nern-resource") is None
    whole = {"Upload-Length": str(len(NETWORK))}
    last = patch(client, address, len(NETWORK), b"", **whole)
    assert client.get(f"{last.headers['nern-resource']}/file").content == NETWORK
    assert is_problem(patch(client, address, len(NETWORK), b"", **{"Upload-Length": "10"}), 400, "bad-request")


def test_a_client_ends_an_upload(client: httpx.Client, settings: Settings) -> None:
    address = begin(client, 10)
    patch(client, address, 0, b"abc")
    assert files(settings.data_dir / "blobs")
    ended = client.delete(address, headers=RESUMABLE)
    assert (ended.status_code, ended.headers["tus-resumable"], ended.text) == (204, "1.0.0", "")
    assert not files(settings.data_dir / "blobs")
    assert head(client, address).status_code == 410
    for answer in (client.get(address), patch(client, address, 3, b"d"), client.delete(address, headers=RESUMABLE)):
        assert is_problem(answer, 410, "gone", "ended")


def test_what_an_upload_has_become_outlives_it(client: httpx.Client) -> None:
    created = create(client, len(NETWORK), content=NETWORK)
    assert client.delete(created.headers["location"], headers=RESUMABLE).status_code == 204
    assert client.get(created.headers["nern-resource"]).status_code == 200


def test_an_unknown_upload(client: httpx.Client) -> None:
    address = "/v1/uploads/nope"
    assert head(client, address).status_code == 404
    for answer in (client.get(address), patch(client, address, 0, b"d"), client.delete(address, headers=RESUMABLE)):
        assert is_problem(answer, 404, "not-found", "nope")
        assert (answer.headers["cache-control"], answer.headers["tus-resumable"]) == ("no-store", "1.0.0")


def test_a_method_may_stand_in_a_header(client: httpx.Client) -> None:
    address = begin(client, 10)
    headers = {**RESUMABLE, **BYTES, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert client.post(address, headers=headers, content=b"abc").headers["upload-offset"] == "3"
    told = client.post(address, headers={**RESUMABLE, "X-HTTP-Method-Override": "HEAD"})
    assert (told.status_code, told.headers["upload-offset"]) == (200, "3")
    assert client.post(address, headers={**RESUMABLE, "X-HTTP-Method-Override": "delete"}).status_code == 204
    assert head(client, address).status_code == 410
    assert is_problem(
        client.post(address, headers={**RESUMABLE, "X-HTTP-Method-Override": "PUT"}), 405, "method-not-allowed", "PUT"
    )
    assert client.post("/v1/jobs", headers={"X-HTTP-Method-Override": "GET"}).status_code != 200


@pytest.mark.parametrize(
    ("headers", "status", "slug", "named"),
    [
        ({"Upload-Length": "ten"}, 400, "bad-request", "Upload-Length"),
        ({"Upload-Length": "-1"}, 400, "bad-request", "Upload-Length"),
        ({"Upload-Length": "9" * 30}, 400, "bad-request", "Upload-Length"),
        ({"Upload-Length": ""}, 400, "bad-request", "Upload-Length"),
        ({"Upload-Defer-Length": "1"}, 400, "bad-request", "Upload-Length"),
        ({"Upload-Concat": "partial"}, 400, "bad-request", "concatenated"),
        ({"Upload-Metadata": ""}, 422, "invalid", "kind"),
        ({"Upload-Metadata": metadata(kind="video")}, 422, "invalid", "checkpoint or dataset"),
        ({"Upload-Metadata": "kind !!!"}, 400, "bad-request", "base64"),
        ({"Upload-Metadata": "kind /w=="}, 400, "bad-request", "UTF-8"),
        ({"Upload-Metadata": metadata(kind="dataset") + ",kind eA=="}, 400, "bad-request", "twice"),
        ({"Upload-Metadata": metadata(kind="dataset", mean="1")}, 422, "invalid", "both"),
        ({"Upload-Metadata": metadata(kind="dataset", mean="a", std="1")}, 422, "invalid", "mean"),
        ({"Upload-Metadata": metadata(kind="dataset", mean="1", std="0")}, 422, "invalid", "std"),
        ({"Upload-Checksum": "md5 AAAA"}, 400, "bad-request", "sha1"),
        ({"Upload-Checksum": "sha1 !"}, 400, "bad-request", "base64"),
    ],
)  # fmt: skip
def test_what_a_client_gets_wrong_when_it_creates_an_upload(
    client: httpx.Client, headers: dict[str, str], status: int, slug: str, named: str
) -> None:
    assert is_problem(create(client, 10, headers=headers), status, slug, named)


def test_keys_of_metadata_that_mean_nothing_here_are_let_be(client: httpx.Client) -> None:
    header = metadata(kind="checkpoint", filetype="x/y") + ",is_confidential,relativePath"
    address = begin(client, 10, headers={"Upload-Metadata": header})
    assert head(client, address).headers["upload-metadata"] == header
    assert client.get(address).json()["filename"] == "unnamed"


@pytest.mark.parametrize("headers", [{"Upload-Offset": "x"}, {"Upload-Offset": ""}, {"Upload-Checksum": "crc32 AAAA"}])
def test_malformed_headers_of_a_piece(client: httpx.Client, headers: dict[str, str]) -> None:
    address = begin(client, 10)
    assert is_problem(patch(client, address, 0, b"abc", **headers), 400, "bad-request", next(iter(headers)))
    without = client.patch(address, headers={**RESUMABLE, **BYTES}, content=b"abc")
    assert is_problem(without, 400, "bad-request", "Upload-Offset")
    assert offset(client, address) == 0


def test_an_upload_says_when_it_expires_and_is_gone_then(app: FastAPI, client: httpx.Client, settings: Settings) -> None:
    created = create(client, 10)
    address = created.headers["location"]
    left = parsedate_to_datetime(created.headers["upload-expires"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=50) < left <= timedelta(hours=24)
    assert "upload-expires" in patch(client, address, 0, b"abc").headers
    with replaced("service.uploads.resumable.now", lambda session: datetime.now(UTC) + timedelta(hours=24, seconds=1)):
        assert head(client, address).status_code == 410
        for answer in (client.get(address), patch(client, address, 3, b"d"), client.delete(address, headers=RESUMABLE)):
            assert is_problem(answer, 410, "gone", "expired")
    assert offset(client, address) == 3


def test_a_file_that_could_not_be_inspected_waits_for_the_next_request(app: FastAPI, client: httpx.Client) -> None:
    """The service is overloaded when the last byte arrives: a repeated request at the end, or HEAD, inspects the file."""
    busy = replaced.object(Intake, "checkpoint", side_effect=problems.Unavailable("no process can be started"))
    sweeps = replaced.object(app.state.context.uploads, "sweep")
    with sweeps:
        for ask in ("patch", "head"):
            address = begin(client, len(NETWORK))
            with busy:
                assert is_problem(patch(client, address, 0, NETWORK), 503, "unavailable")
                assert client.get(address).json()["state"] == "received"
                assert head(client, address).status_code == 503
            answer = patch(client, address, len(NETWORK), b"") if ask == "patch" else head(client, address)
            assert answer.headers["upload-offset"] == str(len(NETWORK))
            assert client.get(answer.headers["nern-resource"]).status_code == 200


def test_a_creation_whose_file_could_not_be_inspected_tells_the_address(client: httpx.Client) -> None:
    with replaced.object(Intake, "checkpoint", side_effect=problems.Unavailable("no process can be started")):
        created = create(client, len(NETWORK), content=NETWORK)
        assert (created.status_code, created.headers["upload-offset"]) == (201, str(len(NETWORK)))
    assert "nern-resource" in head(client, created.headers["location"]).headers


def test_a_blob_store_that_is_away_loses_nothing_that_was_acknowledged(client: httpx.Client) -> None:
    address = begin(client, len(NETWORK))
    patch(client, address, 0, NETWORK[:HALF])
    with replaced("obstore.put_async", side_effect=GenericError("no route to host")):
        assert is_problem(patch(client, address, HALF, NETWORK[HALF:]), 503, "unavailable", "blob store")
        assert offset(client, address) == HALF
        created = create(client, len(NETWORK), content=NETWORK)
        assert (created.status_code, created.headers["upload-offset"]) == (201, "0")
    assert "nern-resource" in patch(client, address, HALF, NETWORK[HALF:]).headers


def test_an_upload_in_inspection_is_not_ended(app: FastAPI, client: httpx.Client) -> None:
    address = begin(client, len(NETWORK))
    found: list[httpx.Response] = []

    async def meanwhile(*_: object) -> object:
        async with httpx.AsyncClient(base_url=client.base_url) as other:
            found.append(await other.delete(address, headers=RESUMABLE))
        raise problems.NotACheckpoint("not one")

    with replaced.object(app.state.context.intake, "checkpoint", meanwhile):
        assert is_problem(patch(client, address, 0, NETWORK), 422, "not-a-checkpoint")
    assert is_problem(found[0], 423, "locked", "inspected")
