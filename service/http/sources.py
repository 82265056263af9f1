"""Byte sources, and the one response that answers with their bytes."""

from collections.abc import AsyncIterator, Generator
from contextlib import suppress
from typing import Protocol

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

# What a source reads is sent in pieces of at least this size, each made in one hop to a thread.
SENT_BYTES = 64 * 2**10


class Source(Protocol):
    """Bytes of known length that can be read from any offset. Under one ETag they are always the same."""

    @property
    def nbytes(self) -> int: ...

    @property
    def etag(self) -> str:
        """Without quotes; no `/` and no `:` in it."""

    @property
    def media_type(self) -> str: ...

    def read(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Bytes start..stop, in pieces that fit in memory, each read when it is asked for.

        The generator runs in a thread and may block. Between two pieces a client may take as long as it likes, so the
        generator then holds no database connection and no lock; it is closed when the client goes away.
        """


class SourceResponse(StreamingResponse):
    """A whole source; for HEAD the headers alone.

    The first piece is read before the headers are sent, so that a source that can't be read is answered with a problem. At
    most one piece is in memory, and a piece is read when the client has taken the one before.
    """

    def __init__(self, source: Source, *, disposition: str = "attachment") -> None:
        headers = {"Content-Length": str(source.nbytes), "ETag": f'"{source.etag}"', "Content-Disposition": disposition}
        super().__init__((), media_type=source.media_type, headers=headers)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await Response(headers=self.headers, media_type=self.media_type)(scope, receive, send)
            return
        pieces = self._source.read(0, self._source.nbytes)
        try:
            first = await run_in_threadpool(_next, pieces)
            self.body_iterator = _sent(first, pieces)
            await super().__call__(scope, receive, send)
        finally:
            # A server that stops does not wait for the thread that is reading a piece; the generator ends with that piece.
            with suppress(ValueError):
                pieces.close()


async def _sent(piece: bytes, pieces: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
    while piece:
        yield piece
        piece = await run_in_threadpool(_next, pieces)


def _next(pieces: Generator[bytes, None, None]) -> bytes:
    """At least SENT_BYTES, or what is left; nothing at the end."""
    taken, nbytes = [], 0
    for piece in pieces:
        taken.append(piece)
        nbytes += len(piece)
        if nbytes >= SENT_BYTES:
            break
    return b"".join(taken)
