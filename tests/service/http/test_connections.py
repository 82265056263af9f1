"""Connections that do nothing, and bytes that are no requests, on a real socket."""

import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any
from unittest.mock import patch

import httpx
import psutil
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service.http import connections
from service.http.connections import limited, room_for_connections
from tests.support.servers import free_port
from tests.support.waiting import DEADLINE_SECONDS, until

# More than the kernel keeps for a client that reads nothing.
LARGE_BYTES = 64 * 2**20

HEAD = b"POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n"


def application() -> FastAPI:
    app = FastAPI()
    arrived: list[int] = []

    @app.post("/count")
    async def count(request: Request) -> int:
        # In a thread, as routes that ask the database. Meanwhile, the server may read on.
        return await run_in_threadpool(len, await request.body())

    @app.post("/pieces")
    async def pieces(request: Request) -> None:
        with suppress(ClientDisconnect):
            async for piece in request.stream():
                arrived.append(len(piece))

    @app.get("/pieces")
    async def so_far() -> int:
        return sum(arrived)

    @app.get("/large")
    async def large() -> Response:
        return StreamingResponse(bytes(2**20) for _ in range(LARGE_BYTES // 2**20))

    @app.get("/")
    async def show() -> str:
        return "here"

    return app


@contextmanager
def served(max_connections: int = 100) -> Iterator[int]:
    """A block in which a server runs. Yields its port."""
    port = free_port()
    config = uvicorn.Config(application(), port=port, log_config=None, http=limited(max_connections), timeout_keep_alive=600)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started, what="the server")
        yield port
    finally:
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as connection:
        yield connection


def is_closed(connection: socket.socket) -> bool:
    """Whether the other end closes the connection, and sends nothing before."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def drip(connection: socket.socket, count: int, seconds: float = 0.01) -> int:
    """Sends one byte after the other, as a slow client does. Returns how many could be sent."""
    for number in range(count):
        try:
            connection.sendall(b"x")
        except (BrokenPipeError, ConnectionResetError):
            return number
        time.sleep(seconds)
    return count


def answers(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/", timeout=DEADLINE_SECONDS).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_a_head_that_does_not_end_is_given_up(sent: bytes) -> None:
    with patch.object(connections, "HEAD_SECONDS", 0.3), served() as port, connected(port) as connection:
        connection.sendall(sent)
        assert is_closed(connection)
        assert answers(port)


def test_bytes_of_a_head_give_it_no_more_time() -> None:
    with patch.object(connections, "HEAD_SECONDS", 0.5), served() as port, connected(port) as connection:
        assert drip(connection, 10_000) < 10_000


def test_the_head_of_a_later_request_is_given_up_too() -> None:
    with patch.object(connections, "HEAD_SECONDS", 0.3), served() as port, connected(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert b"200 OK" in connection.recv(10_000)
        connection.sendall(b"GET /")
        until(lambda: is_closed(connection), what="the end of the connection")


def test_a_body_that_pauses_for_too_long_is_given_up() -> None:
    with patch.object(connections, "BODY_SECONDS", 0.3), served() as port, connected(port) as connection:
        connection.sendall(HEAD + b"abc")
        assert is_closed(connection)


def test_a_slow_body_has_time() -> None:
    with patch.object(connections, "BODY_SECONDS", 1.5), served() as port, connected(port) as connection:
        connection.sendall(HEAD)
        assert drip(connection, 10, seconds=0.3) == 10
        assert b"200 OK" in connection.recv(10_000)


def test_a_connection_between_two_requests_is_left_to_its_own_timer() -> None:
    """Another connection, which waits for a head, is closed meanwhile."""
    times: dict[str, Any] = {"HEAD_SECONDS": 0.2, "BODY_SECONDS": 0.2}
    with patch.multiple(connections, **times), served() as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/").status_code == 200
        with connected(port) as waiting:
            assert is_closed(waiting)
        with patch.object(socket, "create_connection", side_effect=AssertionError("a new connection")):
            assert client.get("/").status_code == 200


def test_connections_that_wait_make_room_for_new_ones() -> None:
    with served(max_connections=5) as port:
        waiting = [socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) for _ in range(20)]
        assert answers(port)
        # The oldest ones have made room, and the newest ones are still there.
        assert is_closed(waiting[0])
        waiting[-1].sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert b"200 OK" in waiting[-1].recv(10_000)
        for connection in waiting:
            connection.close()


def test_a_request_that_is_answered_is_not_closed_for_a_new_connection() -> None:
    with served(max_connections=1) as port, connected(port) as busy:
        busy.sendall(HEAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert b"100" in busy.recv(10_000)
        with connected(port) as refused:
            assert is_closed(refused)
        busy.sendall(b"0123456789")
        assert b"200 OK" in busy.recv(10_000)


def accepted(port: int) -> int:
    """How many connections the server has accepted and not closed."""
    ends = psutil.Process().net_connections()
    return sum(each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED for each in ends)


def received(connection: socket.socket) -> bytes:
    """Everything that is sent before the other end closes the connection."""
    found = bytearray()
    with suppress(ConnectionResetError):
        while piece := connection.recv(2**16):
            found += piece
    return bytes(found)


CHUNKED = b"POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "slug"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 414, "long-url"),
        (b"GET /" + b"a" * 40_000, 414, "long-url"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + b"X-Long: a\r\n" * 5000 + b"\r\n", 431, "long-headers"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 40_000, 431, "long-headers"),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad-request"),
        (b"\x16\x03\x01\x02\x00\x01", 400, "bad-request"),
        (b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, "bad-request"),
        (b"POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "bad-request"),
        (CHUNKED + b"zz\r\n", 400, "bad-request"),
    ],
)
def test_what_is_no_request_is_answered_with_a_short_problem(
    sent: bytes, status: int, slug: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), served() as port, connected(port) as connection:
        connection.sendall(sent)
        head, _, body = received(connection).partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"application/problem+json" in head
        assert len(body) < 1000
        problem = json.loads(body)
        assert (problem["status"], problem["type"]) == (status, f"/problems/{slug}")
        assert answers(port)
    assert "ProtocolError" not in caplog.text


def test_a_body_that_is_malformed_after_its_answer_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), served() as port, connected(port) as connection:
        connection.sendall(CHUNKED.replace(b"/count", b"/nowhere"))
        assert b"404 Not Found" in connection.recv(10_000)
        connection.sendall(b"zz\r\n")
        assert b"400" not in received(connection), "returns when the connection is closed"
        assert answers(port)
    assert not caplog.records


def test_others_are_answered_while_many_small_chunks_are_parsed() -> None:
    count = 10_000
    with served() as port, connected(port) as connection, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        connection.sendall(CHUNKED.replace(b"/count", b"/pieces") + b"1\r\na\r\n" * count)
        seen = {0}
        while count not in seen and len(seen) < 6:
            seen.add(client.get("/pieces").json())
        assert count not in seen


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\na",
        CHUNKED.replace(b"/count", b"/nowhere") + b"1\r\na\r\n" * 100 + b"0\r\n\r\n",
    ],
    ids=["answered when they are read", "answered before they are read"],
)
def test_a_client_that_sends_many_requests_at_once_is_read_as_they_are_answered(request_: bytes) -> None:
    requests = request_ * 5000
    with served() as port, connected(port) as connection:
        connection.setblocking(False)
        sent, found, rest = 0, 0, requests
        while found < 200:
            # The kernel keeps some megabytes at both ends.
            assert sent < 16 * 2**20
            try:
                nbytes = connection.send(rest)
                sent, rest = sent + nbytes, rest[nbytes:] or requests
            except BlockingIOError:
                with suppress(BlockingIOError):
                    found += connection.recv(2**10).count(b"HTTP/1.1 ")


def test_no_more_of_a_body_is_read_than_can_be_parsed() -> None:
    chunks = b"1\r\na\r\n" * 40_000
    with served() as port, connected(port) as connection, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        connection.sendall(CHUNKED.replace(b"/count", b"/pieces"))
        connection.setblocking(False)
        sent, rest = 0, chunks
        while client.get("/pieces").json() < 10_000:
            with suppress(BlockingIOError):
                while nbytes := connection.send(rest):
                    sent, rest = sent + nbytes, rest[nbytes:] or chunks
            # The kernel keeps some megabytes at both ends.
            assert sent < 16 * 2**20


def test_a_client_that_takes_nothing_of_an_answer_is_given_up() -> None:
    with patch.object(connections, "SEND_SECONDS", 0.3), served() as port, connected(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
        assert connection.recv(1) == b"H"
        until(lambda: not accepted(port), what="the end of the connection")
        assert len(received(connection)) < LARGE_BYTES


def test_a_slow_client_gets_its_whole_answer() -> None:
    with patch.object(connections, "SEND_SECONDS", 1.5), served() as port, connected(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        nbytes = 0
        while piece := connection.recv(2**20, socket.MSG_WAITALL):
            nbytes += len(piece)
            time.sleep(0.03)
        assert nbytes > LARGE_BYTES


@pytest.mark.parametrize(
    ("limits", "room", "raised"),
    [
        ((1024, 4096), 1000, (1400, 4096)),
        ((1024, 1024), 624, (1024, 1024)),
        ((10_000, 10_000), 1000, None),
    ],
)
def test_there_are_as_many_connections_as_descriptors_are_left(
    limits: tuple[int, int], room: int, raised: tuple[int, int] | None
) -> None:
    with (
        patch("resource.getrlimit", return_value=limits),
        patch("resource.setrlimit") as set_limit,
    ):
        assert room_for_connections(1000) == room
    assert [call.args[1] for call in set_limit.call_args_list] == ([raised] if raised else [])
