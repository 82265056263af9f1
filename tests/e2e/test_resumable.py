"""Resumable uploads with a real client (tuspy) and real servers: cut connections, killed servers, two replicas."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tusclient.client import TusClient
from tusclient.uploader.uploader import Uploader

from service.store import migrate
from service.store.database import Database
from tests.support.calls import NETWORK, files
from tests.support.cuts import cutting
from tests.support.networks import npz
from tests.support.processes import serving
from tests.support.tus import RESUMABLE, begin, offset, patch
from tests.support.waiting import DEADLINE_SECONDS, until

INTERRUPTIONS = 30

# About 5 MB, so that a PATCH takes some time, and of random bytes, so that a wrong byte is noticed.
IMAGES = npz(images=np.random.default_rng(0).integers(0, 256, (1700, 32, 32, 3), dtype=np.uint8))


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, str]:
    """The settings of servers that share a database and a blob store."""
    shared = {"NERN_BLOB_URL": (tmp_path / "blobs").as_uri(), "NERN_INSPECTORS": "1"}
    if request.param == "sqlite":
        return {**shared, "NERN_DATA_DIR": str(tmp_path / "data")}
    url = request.getfixturevalue("postgres_url")
    database = Database(url)
    migrate.upgrade(database)
    database.close()
    return {**shared, "NERN_DATABASE_URL": url}


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=DEADLINE_SECONDS) as client:
        yield client


def uploader(url: str, content: bytes, *, kind: str = "dataset", address: str | None = None, **options: Any) -> Uploader:
    """A client for one file that goes on after failures."""
    options |= {"metadata": {"filename": "file", "kind": kind}, "retries": 10_000, "retry_delay": 0}
    return TusClient(f"{url}/v1/uploads").uploader(file_stream=BytesIO(content), url=address, **options)


@contextmanager
def sending(url: str, address: str, content: bytes) -> Iterator[None]:
    """A block in which a PATCH for all of IMAGES is under way, and `content` has been sent of it."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"PATCH {address} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
        head += f"Content-Type: application/offset+octet-stream\r\nContent-Length: {len(IMAGES)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        yield


def outcome(client: httpx.Client, url: str, address: str) -> dict[str, object]:
    """What an upload has become."""
    shown = client.get(f"{url}{address}").json()
    assert shown["state"] == "done", shown
    return dict(client.get(f"{url}{shown['resource']}").json())


@pytest.mark.parametrize("checked", [False, True], ids=["plain", "checksums"])
def test_a_client_whose_connections_are_cut_at_random_bytes(
    tmp_path: Path, state: Mapping[str, str], client: httpx.Client, checked: bool
) -> None:
    random = np.random.default_rng(1)
    # With checksums, a piece is kept as a whole or not at all, so pieces must be able to get through.
    longest, chunk = (200_000, 100_000) if checked else (len(IMAGES) // INTERRUPTIONS, len(IMAGES))
    with serving(tmp_path, state, "--no-worker") as (url, _):

        def after() -> int | None:
            return int(random.integers(1, longest)) if cuts.made < INTERRUPTIONS else None

        with cutting(url, after) as cuts:
            sent = uploader(url, IMAGES, chunk_size=chunk, upload_checksum=checked)
            created = sent.create_url()
            sent.set_url(created.replace(url, cuts.url))
            sent.upload()
            assert cuts.made == INTERRUPTIONS
        found = outcome(client, url, created.removeprefix(url))
        assert (found["size"], found["images"], found["name"]) == (len(IMAGES), 1700, "file")
        ordinary = client.post(f"{url}/v1/datasets", files={"file": ("images.npz", IMAGES)})
        assert (ordinary.status_code, ordinary.json()["id"]) == (200, found["id"])


def test_an_upload_that_was_begun_at_one_replica_goes_on_at_another(
    tmp_path: Path, state: Mapping[str, str], client: httpx.Client
) -> None:
    with ExitStack() as stack:
        urls = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            urls.append(stack.enter_context(serving(tmp_path / name, state, "--no-worker"))[0])
        sent = uploader(urls[0], NETWORK, kind="checkpoint", chunk_size=50_000)
        address = sent.create_url().removeprefix(urls[0])
        # Each chunk goes to the other replica.
        for number, start in enumerate(range(0, len(NETWORK), 50_000)):
            url = urls[number % 2]
            sent = uploader(url, NETWORK, kind="checkpoint", chunk_size=50_000, address=url + address)
            assert sent.offset == start
            sent.upload(stop_at=min(start + 50_000, len(NETWORK)))
        for url in urls:
            assert outcome(client, url, address)["architecture"] == "cifar/resnet8"
            shown = client.get(f"{url}{address}").json()
            assert client.get(f"{url}{shown['resource']}/file").content == NETWORK


def test_a_server_that_is_killed_in_the_middle_of_a_request(
    tmp_path: Path, state: Mapping[str, str], client: httpx.Client
) -> None:
    """What had been stored is kept."""
    with serving(tmp_path, state, "--no-worker") as (url, process):
        client.base_url = httpx.URL(url)
        address = begin(client, len(IMAGES), "dataset")
        with sending(url, address, IMAGES[: len(IMAGES) * 9 // 10]):
            # HEAD would end the request.
            kept = until(lambda: client.get(address).json()["offset"], what="a stored part")
            process.kill()
            process.wait()
    with serving(tmp_path, state, "--no-worker") as (url, _):
        client.base_url = httpx.URL(url)
        start = offset(client, address)
        assert start >= kept
        assert patch(client, address, start, IMAGES[start:]).status_code == 204
        assert outcome(client, "", address)["images"] == 1700
        assert not files(tmp_path / "blobs" / "uploads")


def test_a_server_that_is_killed_while_it_inspects(tmp_path: Path, state: Mapping[str, str], client: httpx.Client) -> None:
    """The next server inspects the file without being asked."""
    settings = {**state, "NERN_LEASE_SECONDS": "1", "NERN_SWEEP_SECONDS": "0.1", "NERN_INSPECTORS": "0"}
    with serving(tmp_path, settings, "--no-worker") as (url, process):
        client.base_url = httpx.URL(url)
        address = begin(client, len(IMAGES), "dataset")
        with sending(url, address, IMAGES):
            until(lambda: client.get(address).json()["state"] == "received", what="the last byte")
            process.kill()
            process.wait()
    with serving(tmp_path, settings, "--no-worker") as (url, _):
        client.base_url = httpx.URL(url)
        until(lambda: client.get(address).json()["state"] == "done", what="the inspection")
        assert outcome(client, "", address)["images"] == 1700
        assert client.delete(address, headers=RESUMABLE).status_code == 204
