"""The bytes of a request, read ahead while the bytes before them are stored.

A server forgets what it has received but not yet handed over when the connection is cut. A task takes the bytes over as they
arrive, so that as much as possible is kept.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# The task reads this many pieces ahead. A server hands over pieces of at most about 64 KiB.
AHEAD_PIECES = 32


@asynccontextmanager
async def arriving(content: AsyncIterator[bytes], *, pause_seconds: float) -> AsyncIterator[AsyncIterator[bytes]]:
    """A block in which `content` is read ahead. Yields its pieces, and an empty piece after each pause of `pause_seconds`."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(AHEAD_PIECES)

    async def take() -> None:
        try:
            async for piece in content:
                if piece:
                    await queue.put(piece)
        finally:
            await queue.put(None)

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(pause_seconds):
                    piece = await queue.get()
            except TimeoutError:
                yield b""
                continue
            if piece is None:
                break
            yield piece
        await taking

    taking = asyncio.create_task(take())
    try:
        yield pieces()
    finally:
        taking.cancel()
        while not queue.empty():
            queue.get_nowait()
        await asyncio.gather(taking, return_exceptions=True)
