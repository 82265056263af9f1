"""Connections: how many there may be, how long each may do nothing, how much each may ask for at once; and what is no request.

Anybody can open connections, without a key. uvicorn keeps a connection whose request never ends. When the process has no
descriptor left, it accepts no connection until clients leave. uvicorn also parses at once what it has read of a connection: for
forty thousand chunks of one byte, nobody else is answered for seconds. And it reads more before it has parsed that.
"""

import asyncio
import logging
import resource
import sys
from http import HTTPStatus
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from service import problems
from service.http.errors import MEDIA_TYPE, document

log = logging.getLogger(__name__)

# The head of a request must arrive within this time: counted from the connection, or from the first byte of a later request.
HEAD_SECONDS = 15.0

# A body may pause for this time.
BODY_SECONDS = 60.0

# A client may take nothing of an answer for this time.
SEND_SECONDS = 120.0

# The longest URL, and the most bytes of a whole head.
MAX_URL_BYTES = 16 * 2**10
MAX_HEAD_BYTES = 32 * 2**10

# So many events of a connection are handled before those of others: heads of requests, chunks of bodies, ends of requests.
TURN_EVENTS = 64

# Descriptors for everything else: the database, the broker, files, inspecting processes.
OTHER_DESCRIPTORS = 400


class _Parser(h11.Connection):
    """The parser of uvicorn, which refuses long heads however they arrive, and pauses after TURN_EVENTS.

    left: how many events may be handled before the next pause; less than none if there was a pause.
    """

    left = 0

    def next_event(self) -> Any:
        self.left -= 1
        if self.left < 0:
            return h11.NEED_DATA
        in_head = self.their_state is h11.IDLE
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if in_head and error.error_status_hint == 431 and b"\n" not in self.trailing_data[0]:
                raise h11.RemoteProtocolError("the URL is too long", error_status_hint=414) from None
            raise
        if isinstance(event, h11.Request):
            if len(event.target) > MAX_URL_BYTES:
                raise h11.RemoteProtocolError("the URL is too long", error_status_hint=414)
            if len(event.target) + sum(len(name) + len(value) for name, value in event.headers) > MAX_HEAD_BYTES:
                raise h11.RemoteProtocolError("the headers are too long", error_status_hint=431)
        return event


class _Flow(FlowControl):
    """The flow control of uvicorn, which does not read on while more than a head waits for the parser."""

    def __init__(self, transport: asyncio.Transport, parser: _Parser) -> None:
        super().__init__(transport)
        self._parser = parser

    def pause_reading(self) -> None:
        # uvicorn resumes the transport itself behind the body of a request that was answered early.
        self.read_paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused and len(self._parser.trailing_data[0]) <= MAX_HEAD_BYTES:
            super().resume_reading()


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, which closes connections that do nothing. `limited` makes a class with a limit of its own.

    waiting: the connections that wait for the head of a request. The one that has waited for the longest comes first. If there
        are more than `max_connections`, that one is closed; if none waits, the new one.
    """

    max_connections: ClassVar[int]
    waiting: ClassVar[dict["LimitedProtocol", None]]

    _timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None
    _turn: asyncio.Handle | None = None

    conn: _Parser

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Parser(h11.SERVER, MAX_HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = _Flow(transport, self.conn)
        self._wait_for_head()
        if len(self.connections) > self.max_connections:
            longest = next(iter(self.waiting), self)
            log.warning("there are %d connections; one that waits is closed", len(self.connections))
            longest.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def handle_events(self) -> None:
        """Handles TURN_EVENTS at most. If there are more, the other connections come first, and no more is read."""
        was_behind = self.conn.left < 0
        self.conn.left = TURN_EVENTS
        super().handle_events()
        if self.conn.left < 0:
            self.flow.pause_reading()
            self._turn = self._turn or self.loop.call_soon(self._take_turn)
        elif was_behind and not self._has_full_body():
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._send_timer = self.loop.call_later(SEND_SECONDS, self.close)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._send_timer:
            self._send_timer.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answers bytes that are no request, and closes the connection. uvicorn calls this method with the error at hand."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.close()
            return
        problem = _problem(getattr(sys.exception(), "error_status_hint", 400))
        body = document(problem)
        headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Connection": "close"}
        reason = HTTPStatus(problem.status).phrase.encode()
        head = h11.Response(status_code=problem.status, headers=list(headers.items()), reason=reason)
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def close(self) -> None:
        """Closes the connection at once."""
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    def _take_turn(self) -> None:
        self._turn = None
        if not self.transport.is_closing():
            self.handle_events()
            self._watch()

    def _has_full_body(self) -> bool:
        """Whether so much of a body waits for the application that no more of it is read."""
        return bool(self.cycle) and not self.cycle.response_complete and len(self.cycle.body) > HIGH_WATER_LIMIT

    def _watch(self) -> None:
        """Sets the timer for what is to come next: more of a head, more of a body, or nothing."""
        coming = self.conn.their_state
        if self.transport.is_closing():
            self._stop_waiting()
        elif coming is h11.SEND_BODY:
            self._stop_waiting()
            self._timer = self.loop.call_later(BODY_SECONDS, self._close_unless_paused)
        elif coming is not h11.IDLE:
            self._stop_waiting()
        elif self in self.waiting:
            pass  # bytes of a head do not give it more time
        elif self.conn.trailing_data[0]:
            self._wait_for_head()
        else:
            self._stop_waiting()  # uvicorn's own timer ends a connection between two requests

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self.waiting[self] = None
        self._timer = self.loop.call_later(HEAD_SECONDS, self.close)

    def _stop_waiting(self) -> None:
        self.waiting.pop(self, None)
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _close_unless_paused(self) -> None:
        """Closes the connection, unless the service itself does not read at the moment."""
        if self.flow.read_paused:
            self._watch()
        else:
            self.close()


def _problem(status: int) -> problems.Problem:
    """What is wrong with a request that could not be parsed. The parser tells the status."""
    if status == problems.LongURL.status:
        return problems.LongURL(f"the URL is longer than {MAX_URL_BYTES} bytes, the most that this service reads")
    if status == problems.LongHeaders.status:
        return problems.LongHeaders(
            f"the URL and the headers have more than {MAX_HEAD_BYTES} bytes, the most that this service reads"
        )
    return problems.BadRequest("the request is not valid HTTP/1.1")


def limited(max_connections: int) -> type[LimitedProtocol]:
    """The protocol of one server."""
    return type("Limited", (LimitedProtocol,), {"max_connections": max_connections, "waiting": {}})


def room_for_connections(wanted: int) -> int:
    """How many connections the process has descriptors for, at most `wanted`. Raises the process's own limit if that helps."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft - OTHER_DESCRIPTORS)
    if room < wanted:
        log.warning("the limit of open files leaves room for %d connections, and %d are wanted", room, wanted)
    return max(room, 1)
