"""A pool of inspecting processes that wait for files, so that no upload waits for the imports of a process."""

import asyncio
import json
import logging
import signal
import time
from types import TracebackType
from typing import Any, Self

from starlette.concurrency import run_in_threadpool

from service import problems
from service.inspection.process import Ended, Inspector, Task
from service.metrics.counted import INSPECTION_SECONDS

log = logging.getLogger(__name__)

# How many files are read at the same time. Each takes one core, and memory in proportion to the size of the file.
MAX_TASKS = 2

# How long an upload waits for a process, which may have to be started first.
START_SECONDS = 60

# How long the pool waits before the next attempt if a process can't be started.
RESTART_SECONDS = 1

# The most processes that one file is handed to, if they end before they take the file.
MAX_HANDOVERS = 3


class NotWarmedUp(Exception):
    """No inspecting process has finished its imports yet, so an upload would wait for them."""


class Inspectors:
    """An async context manager in whose block `waiting` inspecting processes wait for files. Every process reads one file.

    If `waiting` is 0, a process is started when a file arrives.
    """

    def __init__(self, waiting: int) -> None:
        self._count = waiting
        self._waiting: list[Inspector] = []
        self._arrived = asyncio.Condition()
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
        while self._waiting:
            await self._waiting.pop().close()

    def probe(self) -> None:
        """Raises NotWarmedUp until the first process has been ready for a file. Never raises if `waiting` is 0."""
        if not self._warmed_up:
            raise NotWarmedUp

    async def read(self, task: Task) -> Any:
        """The answer of a process that reads the file of a task, parsed from JSON. Raises Problem."""
        started, outcome = time.perf_counter(), "accepted"
        try:
            return await self._read(task)
        except problems.Problem as problem:
            outcome = "refused" if problem.status < 500 else "failed"
            raise
        finally:
            INSPECTION_SECONDS.labels(task.kind, outcome).observe(time.perf_counter() - started)

    async def _read(self, task: Task) -> Any:
        async with self._places:
            for _ in range(MAX_HANDOVERS):
                inspector = await self._take()
                try:
                    return await _answer(inspector, task)
                except Ended:
                    continue
                finally:
                    await inspector.close()
        log.error("%d inspecting processes ended before they took a file", MAX_HANDOVERS)
        raise problems.Unavailable("the processes that inspect files keep ending; try again later")

    async def _take(self) -> Inspector:
        """A process for one file, marked as taken. The caller must close the process. Raises Unavailable."""
        try:
            async with asyncio.timeout(START_SECONDS):
                inspector = await (self._next() if self._count else Inspector.start())
        except (TimeoutError, Ended, OSError) as error:
            log.error("no inspecting process could be started for an upload: %s", error)
            raise problems.Unavailable("no process that inspects files can be started; try again later") from None
        inspector.take()
        return inspector

    async def _next(self) -> Inspector:
        async with self._arrived:
            await self._arrived.wait_for(lambda: self._waiting)
            return self._waiting.pop(0)

    async def _keep(self) -> None:
        """Keeps one process waiting: when a process is taken or ends, starts the next one. Runs until the task is cancelled."""
        while True:
            try:
                async with asyncio.timeout(START_SECONDS):
                    inspector = await Inspector.start()
            except (TimeoutError, Ended, OSError) as error:
                log.error("an inspecting process could not be started: %s", error)
                await asyncio.sleep(RESTART_SECONDS)
                continue
            async with self._arrived:
                self._waiting.append(inspector)
                self._arrived.notify()
            self._warmed_up = True
            await inspector.taken_or_ended()
            if inspector in self._waiting:
                self._waiting.remove(inspector)
                await inspector.close()
                log.error("an inspecting process ended with status %s while it waited: %s", inspector.code, inspector.log)
                await asyncio.sleep(RESTART_SECONDS)


async def _answer(inspector: Inspector, task: Task) -> Any:
    """What one process says of a file. Raises Problem, and Ended if the process did not take the file."""
    try:
        answer = await inspector.read(task)
    except TimeoutError:
        raise problems.TooDemanding(f"the inspection of the file took longer than {task.seconds} seconds") from None
    if answer is None:
        log.warning("the inspection of a %s ended with status %s: %s", task.kind, inspector.code, inspector.log)
        if inspector.code == -signal.SIGKILL:
            # No limit of the process ends it like this. The kernel does, if the machine or the container has no memory left.
            raise problems.Unavailable("the process that inspected the file was killed; try again later")
        raise problems.TooDemanding("the inspection of the file exceeded its limits of memory, time or output")
    found = await run_in_threadpool(json.loads, answer)
    if "refused" in found:
        slug, detail = found["refused"]
        raise problems.KINDS[slug](detail)
    return found
