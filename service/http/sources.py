"""Byte sources, and the response that sends the bytes of a source to a client."""

from collections.abc import AsyncIterator, Generator
from contextlib import suppress
from typing import Protocol

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.http.methods import is_head

# The pieces that a source yields are joined to pieces of at least this size. Each of these is read in a thread and sent.
SENT_BYTES = 64 * 2**10


class Source(Protocol):
    """Bytes of known length that can be read from any offset. Sources with the same ETag have the same bytes."""

    @property
    def nbytes(self) -> int: ...

    @property
    def etag(self) -> str:
        """A strong ETag, without the quotes. It has no `/` and no `:`."""

    @property
    def media_type(self) -> str: ...

    def read(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Yields bytes start..stop (half-open) in pieces that fit in memory. Each piece is read when the generator is advanced.

        The generator runs in a thread and may block. A slow client may take any time between two pieces, so the generator must
        hold no database connection and no lock when it yields. It is closed when the client disconnects.
        """


class SourceResponse(StreamingResponse):
    """Answers GET with all bytes of a source, and HEAD with the headers alone.

    The first piece is read before the headers are sent. If the source can't be read, the client gets a problem. A piece is read
    when the client has taken the piece before it, so at most one piece is in memory.
    """

    def __init__(self, source: Source, *, disposition: str = "attachment") -> None:
        headers = {"Content-Length": str(source.nbytes), "ETag": f'"{source.etag}"', "Content-Disposition": disposition}
        super().__init__((), media_type=source.media_type, headers=headers)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_head(scope):
            await Response(headers=self.headers, media_type=self.media_type)(scope, receive, send)
            return
        pieces = self._source.read(0, self._source.nbytes)
        try:
            first = await run_in_threadpool(_next, pieces)
            self.body_iterator = _sent(first, pieces)
            await super().__call__(scope, receive, send)
        finally:
            # ValueError: a thread is still reading a piece, because the server stops. The generator ends after that piece.
            with suppress(ValueError):
                pieces.close()


async def _sent(piece: bytes, pieces: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
    while piece:
        yield piece
        piece = await run_in_threadpool(_next, pieces)


def _next(pieces: Generator[bytes, None, None]) -> bytes:
    """The next SENT_BYTES or more. Fewer bytes if the generator ends, and none after its end."""
    taken, nbytes = [], 0
    for piece in pieces:
        taken.append(piece)
        nbytes += len(piece)
        if nbytes >= SENT_BYTES:
            break
    return b"".join(taken)
