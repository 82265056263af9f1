"""One inspecting process, seen from the service: the process is started, warms up, gets one file, answers and ends."""

import asyncio
import json
import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

# The option -I isolates the process: neither the current folder nor environment variables decide which modules are imported.
COMMAND = (sys.executable, "-I", "-m", "service.inspection.child")

MAX_ANSWER_BYTES = 64 * 2**20
RECEIVED_BYTES = 2**16
LOG_BYTES = 2000

# How long to wait for the last output of a process that has ended.
END_SECONDS = 1


@dataclass(frozen=True)
class Task:
    """The file `source` to inspect, the file `target` for its tensors, and limits.

    `seconds` limits wall time and processor time, `max_bytes` the unpacked arrays of a dataset. `size` is the height and width
    that the images of a dataset are brought to. `key` names one of several state_dicts in a checkpoint.
    """

    kind: Literal["checkpoint", "dataset"]
    source: Path
    target: Path
    seconds: int
    max_bytes: int = 0
    size: tuple[int, int] | None = None
    key: str = ""


class Ended(Exception):
    """The process ended before it took a file."""


class Inspector:
    """A process that has finished its imports and waits for one file. `start` makes one. Its owner must call `close`."""

    def __init__(self, process: asyncio.subprocess.Process, connection: socket.socket) -> None:
        self._process = process
        self._connection = connection
        self._taken = asyncio.Event()
        self._log = b""
        self._logging = asyncio.create_task(self._keep_log())

    @classmethod
    async def start(cls) -> Self:
        """Starts a process and returns when the process has warmed up.

        Raises Ended if the process ends before, and OSError if the system can't start a process.
        """
        connection, other = socket.socketpair()
        connection.setblocking(False)
        try:
            with other:
                process = await asyncio.create_subprocess_exec(
                    *COMMAND,
                    stdin=other.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    env={"PATH": os.defpath, "OMP_NUM_THREADS": "1"},
                    cwd="/",
                    # Ctrl-C in a terminal then reaches the service alone, which still answers the requests in flight.
                    start_new_session=True,
                )
        except BaseException:
            connection.close()
            raise
        inspector = cls(process, connection)
        try:
            if not await asyncio.get_running_loop().sock_recv(connection, 1):
                raise Ended
        except BaseException as error:
            await inspector.close()
            if isinstance(error, Ended | ConnectionError):
                raise Ended(inspector.log) from None
            raise
        return inspector

    @property
    def code(self) -> int | None:
        """The exit status of the process; -N if signal N ended it; None while the process runs."""
        return self._process.returncode

    @property
    def log(self) -> str:
        """The last LOG_BYTES of the standard error of the process."""
        return self._log.decode(errors="replace")

    def take(self) -> None:
        """Marks the process as taken: it is about to get a file."""
        self._taken.set()

    async def taken_or_ended(self) -> None:
        """Returns when the process has been taken or has ended."""
        waits = {asyncio.ensure_future(self._taken.wait()), asyncio.ensure_future(self._process.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def read(self, task: Task) -> bytes | None:
        """Hands over the file of a task and returns the answer.

        Returns None if the process exits with another status than 0, or if the answer has more than MAX_ANSWER_BYTES. Raises
        Ended if the process has not taken the file, and TimeoutError after `task.seconds`.
        """
        fields = {
            "kind": task.kind,
            "seconds": task.seconds,
            "max_bytes": task.max_bytes,
            "size": task.size,
            "key": task.key,
        }
        message = json.dumps(fields, ensure_ascii=False).encode()
        with open(task.source, "rb") as file, open(task.target, "wb") as output:
            try:
                socket.send_fds(self._connection, [message], [file.fileno(), output.fileno()])
            except ConnectionError:
                raise Ended(self.log) from None
        async with asyncio.timeout(task.seconds):
            answer = await self._receive()
            if len(answer) > MAX_ANSWER_BYTES:
                return None
            return bytes(answer) if await self._process.wait() == 0 else None

    async def close(self) -> None:
        """Kills the process if it still runs, and waits for its end."""
        self._connection.close()
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await asyncio.wait({self._logging}, timeout=END_SECONDS)
        self._logging.cancel()

    async def _receive(self) -> bytearray:
        loop, answer = asyncio.get_running_loop(), bytearray()
        try:
            while len(answer) <= MAX_ANSWER_BYTES and (received := await loop.sock_recv(self._connection, RECEIVED_BYTES)):
                answer += received
        except ConnectionError:
            # The connection was reset because the process ended before it read the message. A process that reads the message
            # has taken the file, and ends the connection regularly.
            raise Ended(self.log) from None
        return answer

    async def _keep_log(self) -> None:
        assert self._process.stderr is not None
        while written := await self._process.stderr.read(RECEIVED_BYTES):
            self._log = (self._log + written)[-LOG_BYTES:]
