"""Inspecting processes that wait for files, so that no upload waits for their imports."""

import asyncio
import json
import logging
from types import TracebackType
from typing import Any, Self

from service import problems
from service.inspection.process import Ended, Inspector, Task

log = logging.getLogger(__name__)

# Files that are read at the same time: each takes a core, and memory by the size of its file.
MAX_TASKS = 2

# How long an upload waits for a process, which may still have to be started, and the pause after one that could not be.
START_SECONDS = 60
RESTART_SECONDS = 1


class NotWarmedUp(Exception):
    """No process has waited for a file yet: the first upload would wait for its imports."""


class Inspectors:
    """Keeps processes that wait for a file, `waiting` at a time, while it is entered. Every process reads one file.

    With `waiting` 0, a process is started when a file comes.
    """

    def __init__(self, waiting: int) -> None:
        self._count = waiting
        self._waiting: asyncio.Queue[Inspector] = asyncio.Queue()
        self._places = asyncio.Semaphore(MAX_TASKS)
        self._keepers: list[asyncio.Task[None]] = []
        self._warmed_up = not waiting

    async def __aenter__(self) -> Self:
        self._keepers = [asyncio.create_task(self._keep()) for _ in range(self._count)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        while not self._waiting.empty():
            await self._waiting.get_nowait().close()

    def probe(self) -> None:
        """Raises NotWarmedUp until the first process waits for a file."""
        if not self._warmed_up:
            raise NotWarmedUp

    async def read(self, task: Task) -> Any:
        """What a process finds in a file. Raises Problem."""
        async with self._places:
            while True:
                inspector = await self._take()
                try:
                    answer = await inspector.read(task)
                    break
                except Ended:
                    continue
                except TimeoutError:
                    raise problems.TooDemanding(f"reading the file took longer than {task.seconds} seconds") from None
                finally:
                    await inspector.close()
        if answer is None:
            log.warning("inspection of a %s ended with %s: %s", task.kind, inspector.code, inspector.log)
            raise problems.TooDemanding("the process that read the file exceeded its limits")
        found = json.loads(answer)
        if "refused" in found:
            slug, detail = found["refused"]
            raise problems.KINDS[slug](detail)
        return found

    async def _take(self) -> Inspector:
        """A process of one's own. Raises Unavailable."""
        try:
            async with asyncio.timeout(START_SECONDS):
                inspector = await (self._waiting.get() if self._count else Inspector.start())
        except (TimeoutError, Ended, OSError) as error:
            log.error("no process to read a file: %s", error)
            raise problems.Unavailable("no process that reads files can be started; try again later") from None
        inspector.take()
        return inspector

    async def _keep(self) -> None:
        """Has one process wait, until it is cancelled."""
        while True:
            try:
                inspector = await Inspector.start()
            except (Ended, OSError) as error:
                log.error("a process that reads files could not be started: %s", error)
                await asyncio.sleep(RESTART_SECONDS)
                continue
            self._waiting.put_nowait(inspector)
            self._warmed_up = True
            await inspector.taken_or_ended()
