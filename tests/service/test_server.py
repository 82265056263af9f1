"""The socket of the server."""

import asyncio
import os
import resource
import signal
import socket
from pathlib import Path

import httpx
import pytest

from service.server import _listen, _tell
from service.settings import Settings
from tests.support.logs import logged
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


def test_the_address_is_printed_or_a_line_of_a_json_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, lines = Settings(data_dir=tmp_path), Settings(data_dir=tmp_path, log_format="json")
    with logged() as log:
        _tell("http://a:1", text, as_json=False)
        _tell("http://a:2", text, as_json=True)
        _tell("http://a:3", lines, as_json=True)
        assert log.all() == []
        _tell("http://a:4", lines, as_json=False)
    shown = "NeRN listens on http://a:1 (documentation: http://a:1/docs)"
    assert capsys.readouterr().out.splitlines() == [shown, '{"url": "http://a:2"}', '{"url": "http://a:3"}']
    assert [line["message"] for line in log.all()] == ["NeRN listens on http://a:4 (documentation: http://a:4/docs)"]


def test_the_service_has_a_limit_of_connections(tmp_path: Path) -> None:
    """They all come while the process stands still, are more than its descriptors, and are no traceback in its log."""
    with serving(tmp_path, {"NERN_MAX_CONNECTIONS": "3", "NERN_INSPECTORS": "0"}, "--no-worker") as (url, process):
        address = httpx.URL(url)
        assert httpx.get(f"{url}/livez", timeout=DEADLINE_SECONDS).status_code == 200
        process.send_signal(signal.SIGSTOP)
        open_ones = [socket.create_connection((address.host, address.port), timeout=DEADLINE_SECONDS) for _ in range(400)]
        room = len(os.listdir(f"/proc/{process.pid}/fd")) + 200
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (room, room))
        process.send_signal(signal.SIGCONT)
        assert httpx.get(f"{url}/livez", timeout=DEADLINE_SECONDS).status_code == 200
        assert open_ones[0].recv(1) == b""
        for connection in open_ones:
            connection.close()
    log = (tmp_path / "serve.log").read_text()
    assert "one that waits is closed" in log
    assert "out of system resource" not in log
    assert len(log) < 100_000
