"""The new events of jobs, for any number of event streams: one query finds the new events of all jobs that are followed.

PostgreSQL tells at once that there is an event (LISTEN and NOTIFY). As a net, and for SQLite, the feed looks every
`poll_seconds`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from threading import Event as ThreadEvent
from typing import LiteralString

import psycopg
from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool

from service.store import jobs
from service.store.database import Away, Database
from service.store.job_states import FINAL
from service.store.tables import Job, JobEvent

log = logging.getLogger(__name__)

# Events that are read from the database at a time.
READ_EVENTS = 200

# The newest events of a job that stay in memory while the job is followed.
KEPT_EVENTS = 1000

# Jobs in one query.
QUERIED_JOBS = 500

# The least time between two looks, however many notifications arrive.
PAUSE_SECONDS = 0.02

# The most time until the feed notices that the server stops.
STOP_SECONDS = 0.2

LISTEN: LiteralString = f"LISTEN {jobs.CHANNEL}"


@dataclass
class Tail:
    """The newest events of one job that is followed.

    last: the number of the newest event, or None before the first look.
    over: whether the job is over, or has been deleted.
    rows: the newest events since the first look.
    changed: is set when something has changed, and replaced by a new event then.
    """

    last: int | None = None
    over: bool = False
    rows: deque[JobEvent] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    followers: int = 0

    def wake(self) -> None:
        """Wakes all that wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class Feed:
    """The feed of one process. It looks only while jobs are followed. `stopping`: the server is about to stop."""

    def __init__(self, database: Database, stopping: ThreadEvent, *, poll_seconds: float) -> None:
        self._database = database
        self._stopping = stopping
        self._poll_seconds = poll_seconds
        self._tails: dict[str, Tail] = {}
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def follow(self, job_id: str, after: int, *, quiet_seconds: float) -> AsyncGenerator[Sequence[JobEvent]]:
        """Yields the events of a job after a number, as soon as there are some, until the job is over or the server stops.

        Yields nothing (an empty sequence) after `quiet_seconds` without an event.
        """
        async with self._following(job_id) as tail:
            while not self._stopping.is_set():
                changed = tail.changed
                try:
                    rows = await self._after(tail, job_id, after)
                except Away:
                    rows = []
                if rows:
                    after = rows[-1].number
                    yield rows
                elif tail.over and tail.last is not None and after >= tail.last:
                    return
                else:
                    try:
                        await asyncio.wait_for(changed.wait(), quiet_seconds)
                    except TimeoutError:
                        yield []

    @asynccontextmanager
    async def _following(self, job_id: str) -> AsyncIterator[Tail]:
        if not self._tasks:
            self._due = asyncio.Event()
            self._tasks = [asyncio.create_task(self._look_forever()), asyncio.create_task(self._listen_forever())]
        tail = self._tails.setdefault(job_id, Tail())
        tail.followers += 1
        self._due.set()
        try:
            yield tail
        finally:
            tail.followers -= 1
            if not tail.followers:
                del self._tails[job_id]
            if not self._tails:
                for task in self._tasks:
                    task.cancel()
                self._tasks = []

    async def _after(self, tail: Tail, job_id: str, after: int) -> Sequence[JobEvent]:
        """The events after a number: from memory if they are there."""
        if tail.last is None or after >= tail.last:
            return []
        if tail.rows and tail.rows[0].number <= after + 1:
            return [row for row in tail.rows if row.number > after]
        return await run_in_threadpool(self._read, job_id, after)

    async def _look_forever(self) -> None:
        loop = asyncio.get_running_loop()
        looked = loop.time() - self._poll_seconds
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), min(STOP_SECONDS, self._poll_seconds))
            if self._stopping.is_set():
                for tail in self._tails.values():
                    tail.wake()
            if self._due.is_set() or loop.time() - looked >= self._poll_seconds:
                self._due.clear()
                looked = loop.time()
                try:
                    await self._look()
                except Away as error:
                    log.warning("the database does not answer, so event streams wait: %s", error)
                except Exception:  # whatever it is, the streams of this process must go on
                    log.exception("new events could not be looked for")
                await asyncio.sleep(PAUSE_SECONDS)

    async def _look(self) -> None:
        known = {job_id: tail.last for job_id, tail in self._tails.items()}
        found = await run_in_threadpool(self._find, known)
        for job_id in known:
            if (tail := self._tails.get(job_id)) is None:
                continue
            last, over, rows = found.get(job_id, (tail.last or 0, True, []))
            if (last, over) != (tail.last, tail.over):
                if not (rows and tail.rows and rows[0].number == tail.rows[-1].number + 1):
                    # Events that are not in memory lie between, which the streams read from the database.
                    tail.rows.clear()
                tail.rows.extend(rows)
                tail.last, tail.over = last, over
                tail.wake()

    def _find(self, known: Mapping[str, int | None]) -> dict[str, tuple[int, bool, Sequence[JobEvent]]]:
        """For each job: the number of its newest event, whether the job is over, and the events after the known number."""
        found: dict[str, tuple[int, bool, Sequence[JobEvent]]] = {}
        newest = select(func.max(JobEvent.number)).where(JobEvent.job_id == Job.id).scalar_subquery()
        with self._database.read() as session:
            for ids in _in_parts(known, QUERIED_JOBS):
                for job_id, state, last in session.execute(select(Job.id, Job.state, newest).where(Job.id.in_(ids))):
                    before = known[job_id]
                    few = before is not None and before < (last or 0) <= before + READ_EVENTS
                    rows = jobs.events(session, job_id, after=before or 0, limit=READ_EVENTS) if few else []
                    found[job_id] = (rows[-1].number if rows else last or 0, state in FINAL, rows)
        return found

    def _read(self, job_id: str, after: int) -> Sequence[JobEvent]:
        with self._database.read() as session:
            return jobs.events(session, job_id, after=after, limit=READ_EVENTS)

    async def _listen_forever(self) -> None:
        """Looks at once when PostgreSQL notifies of an event. Connects again after the connection has ended."""
        if (address := self._database.libpq_url) is None:
            return
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
                    await connection.execute(LISTEN)
                    self._due.set()
                    async for _ in connection.notifies():
                        self._due.set()
            except (psycopg.Error, OSError) as error:
                log.warning("no notifications from the database; the feed looks every %g s: %s", self._poll_seconds, error)
            await asyncio.sleep(1)


def _in_parts(ids: Iterable[str], size: int) -> list[list[str]]:
    listed = list(ids)
    return [listed[start : start + size] for start in range(0, len(listed), size)]
