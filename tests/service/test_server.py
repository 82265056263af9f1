"""The socket of the server."""

import asyncio
import socket

from service.server import _listen


def test_answers_are_sent_at_once() -> None:
    """Nagle's algorithm is off on accepted connections. With it, an answer in two parts waits for the client's delayed ACK."""

    async def accepted() -> int:
        made: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            made.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with _listen("127.0.0.1", 0) as listening:
            async with await asyncio.start_server(connected, sock=listening):
                _, writer = await asyncio.open_connection(*listening.getsockname())
                result = await made
                writer.close()
                await writer.wait_closed()
        return result

    assert asyncio.run(accepted()) == 1
