"""The socket of the server."""

import asyncio
import socket
from pathlib import Path

import httpx

from service.server import _listen
from tests.support.processes import serving
from tests.support.waiting import DEADLINE_SECONDS


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


def test_the_service_has_a_limit_of_connections(tmp_path: Path) -> None:
    with serving(tmp_path, {"NERN_MAX_CONNECTIONS": "3", "NERN_INSPECTORS": "0"}, "--no-worker") as (url, _):
        address = httpx.URL(url)
        open_ones = [socket.create_connection((address.host, address.port), timeout=DEADLINE_SECONDS) for _ in range(10)]
        assert httpx.get(f"{url}/livez", timeout=DEADLINE_SECONDS).status_code == 200
        assert open_ones[0].recv(1) == b""
        for connection in open_ones:
            connection.close()
