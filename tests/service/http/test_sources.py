"""One response over any byte source."""

import asyncio
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, get_ident
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from service.http.methods import Methods
from service.http.sources import SENT_BYTES, SourceResponse
from tests.support.waiting import DEADLINE_SECONDS

Messages = list[dict[str, Any]]


@dataclass
class Pieces:
    """A source that remembers how it was read."""

    pieces: Iterator[bytes]
    nbytes: int
    etag: str = "tag"
    media_type: str = "application/octet-stream"
    read_pieces: int = 0
    threads: set[int] = field(default_factory=set)
    closed: bool = False

    def read(self, start: int, stop: int) -> Generator[bytes, None, None]:
        try:
            for piece in self.pieces:
                self.read_pieces += 1
                self.threads.add(get_ident())
                yield piece
        finally:
            self.closed = True


async def never() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


def answered(source: Pieces, *, method: str = "GET", disposition: str = "attachment") -> Messages:
    messages: Messages = []

    async def send(message: Any) -> None:
        messages.append(message)

    app = Methods(SourceResponse(source, disposition=disposition), [APIRoute("/", lambda: None, methods=["GET"])])
    asyncio.run(app({"type": "http", "method": method, "path": "/", "asgi": {"spec_version": "2.3"}}, never, send))
    return messages


def headers(messages: Messages) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in messages[0]["headers"]}


def body(messages: Messages) -> bytes:
    assert not messages[-1].get("more_body")
    return b"".join(message["body"] for message in messages[1:])


def test_a_source_is_answered_whole_with_its_headers() -> None:
    messages = answered(Pieces(iter([b"ab", b"", b"c"]), 3), disposition='attachment; filename="a"')
    assert messages[0]["status"] == 200
    assert headers(messages) == {
        "content-length": "3",
        "etag": '"tag"',
        "content-disposition": 'attachment; filename="a"',
        "content-type": "application/octet-stream",
    }
    assert body(messages) == b"abc"


def test_head_answers_the_same_headers_and_reads_nothing() -> None:
    source = Pieces(iter([b"abc"]), 3)
    messages = answered(source, method="HEAD")
    assert headers(messages) == headers(answered(Pieces(iter([b"abc"]), 3)))
    assert body(messages) == b""
    assert source.read_pieces == 0


def test_an_empty_source_is_answered() -> None:
    assert body(answered(Pieces(iter([]), 0))) == b""


def test_a_source_that_cannot_be_read_has_sent_nothing() -> None:
    class AwayError(Exception):
        pass

    def away() -> Iterator[bytes]:
        raise AwayError
        yield b""

    async def send(message: Any) -> None:
        raise AssertionError(f"sent {message}")

    source = Pieces(away(), 3)
    with pytest.raises(AwayError):
        asyncio.run(SourceResponse(source)({"type": "http", "method": "GET"}, never, send))
    assert source.closed


def test_sources_are_read_outside_the_event_loop_and_small_pieces_together() -> None:
    source = Pieces(iter([b"x"] * SENT_BYTES * 2), SENT_BYTES * 2)
    messages = answered(source)
    assert get_ident() not in source.threads
    assert [len(message["body"]) for message in messages[1:]] == [SENT_BYTES, SENT_BYTES, 0]


def test_a_slow_client_is_not_read_ahead_of() -> None:
    source = Pieces(iter([bytes(SENT_BYTES)] * 20), SENT_BYTES * 20)
    taken = 0

    async def send(message: Any) -> None:
        nonlocal taken
        taken += bool(message.get("body"))
        await asyncio.sleep(0)
        assert source.read_pieces <= max(1, taken)

    asyncio.run(SourceResponse(source)({"type": "http", "method": "GET", "asgi": {"spec_version": "2.3"}}, never, send))
    assert taken == 20


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_a_client_that_goes_away_ends_the_work(spec_version: str) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(SENT_BYTES)

    source = Pieces(endless(), 10**12)
    gone = asyncio.Event()
    sent = 0

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == 3:
            gone.set()
        if sent >= 3 and spec_version == "2.4":
            raise OSError("the connection is closed")

    scope = {"type": "http", "method": "GET", "asgi": {"spec_version": spec_version}}
    with suppress(ClientDisconnect):
        asyncio.run(SourceResponse(source)(scope, receive, send))
    assert source.closed
    assert source.read_pieces <= sent


def test_a_server_that_stops_does_not_stumble_over_the_thread_that_reads() -> None:
    begun, go_on = Event(), Event()

    def slow() -> Iterator[bytes]:
        begun.set()
        assert go_on.wait(DEADLINE_SECONDS)
        yield b"abc"

    async def send(message: Any) -> None:
        raise AssertionError(f"sent {message}")

    async def stopped() -> None:
        task = asyncio.create_task(SourceResponse(source)({"type": "http", "method": "GET"}, never, send))
        await asyncio.to_thread(begun.wait, DEADLINE_SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    source = Pieces(slow(), 3)
    asyncio.run(stopped())
