"""What the log tells of requests, over a real socket: ids, one line for each request, faults, clients that go away."""

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import select

from service.access import issuing
from service.store import checkpoints
from service.store.database import Database
from service.store.tables import Job
from tests.support.logs import Line, Lines, logged
from tests.support.networks import resnet8, saved
from tests.support.waiting import DEADLINE_SECONDS, until

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

ACCESS = "service.http.access_log"


@pytest.fixture
def lines() -> Iterator[Lines]:
    with logged() as lines:
        yield lines


def line_of(lines: Lines, **fields: Any) -> Line:
    """The line about the request with these fields. It is written when the request is over, after the client has its answer."""
    [line] = until(lambda: lines.all(logger=ACCESS, **fields), what="the line about the request")
    return line


def test_a_request_keeps_its_id(client: httpx.Client, lines: Lines) -> None:
    for id in ("a", "0123456789abcdef", "Root=1-67891233-abcdef", "x" * 128):
        answer = client.get("/v1/jobs", headers={"X-Request-ID": id})
        assert answer.headers["x-request-id"] == id
        line_of(lines, request_id=id)


def test_a_request_without_a_well_formed_id_gets_one(client: httpx.Client, lines: Lines) -> None:
    given: list[list[str]] = [[], [""], ["a b"], ["é"], ['"}'], ["x" * 129], ["a", "b"]]
    for ids in given:
        answer = client.get("/v1/jobs", headers=[(b"X-Request-ID", id.encode()) for id in ids])
        assert answer.status_code == 200
        assert UUID.fullmatch(answer.headers["x-request-id"]), ids
        line_of(lines, request_id=answer.headers["x-request-id"])


def test_every_answer_has_an_id_of_its_own(client: httpx.Client) -> None:
    answers = [client.get(path) for path in ("/v1/jobs", "/v1/jobs/none", "/none", "/livez", "/livez")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def test_a_problem_tells_the_id(client: httpx.Client) -> None:
    problem = client.get("/v1/jobs/none", headers={"X-Request-ID": "mine"})
    assert problem.status_code == 404
    assert problem.json()["request_id"] == problem.headers["x-request-id"] == "mine"


def test_a_line_tells_of_a_request_without_its_query(client: httpx.Client, lines: Lines) -> None:
    answer = client.get("/v1/jobs/none?token=hunter2")
    line = line_of(lines)
    expected = {"method": "GET", "path": "/v1/jobs/none", "route": "/v1/jobs/{id}", "status": answer.status_code}
    assert (
        expected | {"size": len(answer.content), "client": "127.0.0.1", "owner": "", "level": "info"}
    ).items() <= line.items()
    assert 0 <= line["seconds"] < DEADLINE_SECONDS
    assert line["message"].startswith(f"GET /v1/jobs/none: {answer.status_code} after ")
    assert "hunter2" not in lines.text


def test_a_line_about_head_tells_what_was_sent(client: httpx.Client, lines: Lines) -> None:
    assert client.head("/v1/jobs").status_code == 200
    line = line_of(lines)
    assert (line["method"], line["route"], line["status"], line["size"]) == ("HEAD", "/v1/jobs", 200, 0)


def test_probes_that_succeed_are_not_logged(client: httpx.Client, lines: Lines) -> None:
    assert client.get("/livez").status_code == 200
    client.get("/v1/jobs")
    assert line_of(lines)["path"] == "/v1/jobs"


def test_the_owner_of_a_key_is_on_the_lines_of_its_requests(client: httpx.Client, database: Database, lines: Lines) -> None:
    with database.write() as session:
        _, key = issuing.issue(session, owner="team-a", scope="read")
    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}x"}).status_code == 401
    assert line_of(lines, status=200)["owner"] == "team-a"
    assert "owner" not in line_of(lines, status=401)
    assert key not in lines.text


def test_a_job_knows_the_request_that_created_it(client: httpx.Client, database: Database, lines: Lines) -> None:
    checkpoint = client.post("/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))}).json()
    made = client.post("/v1/jobs", json={"checkpoint_id": checkpoint["id"]}, headers={"X-Request-ID": "mine"})
    assert made.status_code == 202, made.text
    with database.read() as session:
        assert session.scalars(select(Job.request_id)).all() == ["mine"]
    [line] = lines.all(logger="service.api.jobs")
    assert (line["request_id"], line["job_id"], line["message"]) == ("mine", made.json()["id"], "the job is stored")


def test_a_fault_is_logged_once_with_the_id_of_its_request(client: httpx.Client, lines: Lines) -> None:
    with patch.object(checkpoints, "page", side_effect=RuntimeError("unforeseen")):
        answer = client.get("/v1/checkpoints", headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.json()["request_id"]) == (500, "mine")
    assert line_of(lines)["status"] == 500
    [line] = [line for line in lines.all() if "stack" in line]
    assert (line["request_id"], line["level"]) == ("mine", "error")
    assert line["stack"].endswith("RuntimeError: unforeseen")


@contextmanager
def connected(client: httpx.Client) -> Iterator[socket.socket]:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=DEADLINE_SECONDS) as connection:
        yield connection


UPLOADS = [
    ("/v1/checkpoints", "application/octet-stream", "abc"),
    ("/v1/checkpoints", "multipart/form-data; boundary=b", '--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'),
    ("/v1/datasets", "application/octet-stream", "abc"),
    ("/v1/jobs", "application/json", '{"checkpoint_id":'),
]


def test_an_aborted_upload_leaves_no_stack(client: httpx.Client, lines: Lines) -> None:
    for number, (path, media_type, body) in enumerate(UPLOADS):
        for framing in ("Content-Length: 100000", "Transfer-Encoding: chunked"):
            id = f"{number}-{framing[:8]}"
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nX-Request-ID: {id}\r\nContent-Type: {media_type}\r\n{framing}\r\n\r\n"
            with connected(client) as connection:
                connection.sendall((head + (f"{len(body):x}\r\n{body}\r\n" if "chunked" in framing else body)).encode())
            line_of(lines, request_id=id)
    assert [line for line in lines.all() if "stack" in line or line["level"] != "info"] == []


def test_an_aborted_download_leaves_no_stack(client: httpx.Client, lines: Lines, app: FastAPI) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    @app.get("/v1/endless")
    async def endless() -> StreamingResponse:
        return StreamingResponse(pieces())

    with client.stream("GET", "/v1/endless") as answer:
        next(answer.iter_bytes())
    line = line_of(lines, path="/v1/endless")
    assert line["status"] == 200
    assert [line for line in lines.all() if "stack" in line or line["level"] != "info"] == []


SENT = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n" * 100,
    "a long path": b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "a long method": b"G" * 60_000 + b" / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\n",
    "a forged line": b"GET /%0a%1b[31mforged HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "a long id": b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: " + b"b" * 60_000 + b"\r\nConnection: close\r\n\r\n",
}


def test_whatever_is_sent_a_few_short_lines_are_logged(client: httpx.Client) -> None:
    for what, sent in SENT.items():
        with logged() as lines, connected(client) as connection:
            connection.sendall(sent)
            while connection.recv(65536):
                pass
            until(lambda lines=lines: lines.all(), what="a line")  # type: ignore[misc]
            assert client.get("/livez").status_code == 200
            assert len(lines.all()) <= 3, what
            assert len(lines.text) < 6_000, what


def test_below_info_our_own_code_is_logged_and_no_library(client: httpx.Client) -> None:
    with logged(logging.DEBUG) as lines:
        assert client.get("/livez").status_code == 200
        assert line_of(lines)["level"] == "debug"
        assert {line["logger"] for line in lines.all()} == {ACCESS}
