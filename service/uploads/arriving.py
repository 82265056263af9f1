"""The bytes of a request, read ahead while the bytes before them are stored.

A server forgets what it has received but not yet handed over when the connection is cut. So a task takes the bytes over as they
arrive.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

# The task reads this many pieces ahead. A server hands over pieces of some hundred KiB at most.
AHEAD_PIECES = 32


class Arriving:
    """An async context manager in whose block `content` is read ahead, and an iterator over its pieces.

    After each pause of `pause_seconds`, the iterator yields an empty piece. `over` is set when the block has ended.
    """

    def __init__(self, content: AsyncIterator[bytes], *, pause_seconds: float) -> None:
        self._content = content
        self._pause_seconds = pause_seconds
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(AHEAD_PIECES)
        self.stopped = False
        self.over = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._taking = asyncio.create_task(self._take())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.over.set()
        self._taking.cancel()
        # The task may wait for a place in the queue.
        while not self._taking.done():
            while not self._queue.empty():
                self._queue.get_nowait()
            await asyncio.wait({self._taking}, timeout=0)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._pause_seconds):
                    piece = await self._queue.get()
            except TimeoutError:
                yield b""
                continue
            if piece is None:
                break
            yield piece
        if not self.stopped:
            await self._taking

    def stop(self) -> None:
        """Reads no more. The iterator still yields what has arrived, and ends then. Does nothing if all has been read."""
        self.stopped = self._taking.cancel() or self.stopped

    async def _take(self) -> None:
        try:
            async for piece in self._content:
                if piece:
                    await self._queue.put(piece)
        finally:
            await self._queue.put(None)
