"""One inspecting process, as the service sees it: started and warmed up, handed one file, and ended."""

import asyncio
import json
import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

# Isolated: neither the current folder nor variables decide which modules are imported.
COMMAND = (sys.executable, "-I", "-m", "service.inspection.child")

MAX_ANSWER_BYTES = 64 * 2**20
RECEIVED_BYTES = 2**16
LOG_BYTES = 2000

# How long a killed process may take to be gone, and its last words to arrive.
END_SECONDS = 1


@dataclass(frozen=True)
class Task:
    """A file to read, where its tensors are written, and the limits: wall and processor time, bytes of a dataset unpacked."""

    kind: Literal["checkpoint", "dataset"]
    source: Path
    target: Path
    seconds: int
    max_bytes: int = 0


class Ended(Exception):
    """The process ended before it was handed a file."""


class Inspector:
    """A process that has imported what it needs and waits for one file. Use `start`; whoever has it closes it."""

    def __init__(self, process: asyncio.subprocess.Process, connection: socket.socket) -> None:
        self._process = process
        self._connection = connection
        self._taken = asyncio.Event()
        self._log = b""
        self._logging = asyncio.create_task(self._keep_log())

    @classmethod
    async def start(cls) -> Self:
        """A process that has warmed up. Raises Ended, or OSError if there can't be one more process."""
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
                    start_new_session=True,  # a terminal's Ctrl-C ends the service, which still answers requests in flight
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
        """How the process ended, negative by a signal; None while it runs."""
        return self._process.returncode

    @property
    def log(self) -> str:
        """The end of what the process wrote to standard error."""
        return self._log.decode(errors="replace")

    def take(self) -> None:
        """Says that a file is about to be handed over."""
        self._taken.set()

    async def taken_or_ended(self) -> None:
        """Returns when the process has been taken, or has ended."""
        waits = {asyncio.ensure_future(self._taken.wait()), asyncio.ensure_future(self._process.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def read(self, task: Task) -> bytes | None:
        """The answer to a file, or None if the process ends without one or says too much.

        Raises Ended if the process has not taken the file, and TimeoutError.
        """
        message = json.dumps({"kind": task.kind, "seconds": task.seconds, "max_bytes": task.max_bytes}).encode()
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
        """Ends the process, whatever it does."""
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
            # What was sent has not been read: a process that has taken the file leaves nothing unread.
            raise Ended(self.log) from None
        return answer

    async def _keep_log(self) -> None:
        assert self._process.stderr is not None
        while written := await self._process.stderr.read(RECEIVED_BYTES):
            self._log = (self._log + written)[-LOG_BYTES:]
