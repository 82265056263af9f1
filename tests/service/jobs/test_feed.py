"""Event streams: complete, in order, soon, and one query for all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from threading import Event
from unittest.mock import patch

import pytest

from service.jobs import feed
from service.jobs.feed import Feed
from service.store import jobs, migrate
from service.store.database import Away, Database
from service.store.jobs import Lease
from service.store.tables import JobEvent
from tests.support import rows
from tests.support.rows import NOW
from tests.support.waiting import DEADLINE_SECONDS


@pytest.fixture
def lease(database: Database) -> Lease:
    return running(database)


def running(database: Database) -> Lease:
    """The lease of a new job that runs. The job has two events."""
    checkpoint = rows.checkpoint()
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        jobs.add(session, rows.job(checkpoint.id))
        held = jobs.claim(session, holder="worker", now=NOW, lease=NOW - NOW)
    assert held is not None
    return held


def report(database: Database, lease: Lease, count: int = 1) -> None:
    """Makes events."""
    for _ in range(count):
        with database.write() as session:
            jobs.report_progress(session, lease, now=NOW, progress={}, metrics={}, estimated_finish_at=None, kinds=["progress"])


def finish(database: Database, lease: Lease) -> None:
    with database.write() as session:
        jobs.finish(session, lease, "cancelled", now=NOW)


async def all_of(followed: Feed, job_id: str, after: int = 0, *, quiet_seconds: float = DEADLINE_SECONDS) -> list[int]:
    """The numbers of the events of a stream, until it ends."""
    numbers: list[int] = []
    async with aclosing(followed.follow(job_id, after, quiet_seconds=quiet_seconds)) as stream:
        async for found in stream:
            numbers += [row.number for row in found]
    return numbers


async def seen(followed: Feed, lease: Lease, number: int = 0) -> None:
    """Waits until a feed knows of an event."""
    while (followed._tails.get(lease.job_id, feed.Tail()).last or -1) < number:
        await asyncio.sleep(0.01)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), DEADLINE_SECONDS))


@pytest.mark.parametrize(("read", "kept"), [(200, 1000), (2, 3)], ids=["few events", "more than are read and kept"])
def test_streams_are_complete_and_in_order_wherever_they_begin(
    database: Database, lease: Lease, monkeypatch: pytest.MonkeyPatch, read: int, kept: int
) -> None:
    monkeypatch.setattr(feed, "READ_EVENTS", read)
    monkeypatch.setattr(feed, "KEPT_EVENTS", kept)

    async def test() -> None:
        followed = Feed(database, Event(), poll_seconds=0.02)
        streams = [asyncio.create_task(all_of(followed, lease.job_id, after)) for after in (0, 1, 2, 5)]
        made = 2
        for count in (1, 1, 7, 1, 3):
            await asyncio.to_thread(report, database, lease, count)
            made += count
            await seen(followed, lease, made)
            streams.append(asyncio.create_task(all_of(followed, lease.job_id, 0)))
        await asyncio.to_thread(finish, database, lease)
        last = made + 1
        assert [await stream for stream in streams[:4]] == [list(range(after + 1, last + 1)) for after in (0, 1, 2, 5)]
        assert [await stream for stream in streams[4:]] == [list(range(1, last + 1))] * 5
        # Nobody follows any more, so nothing looks any more.
        assert not followed._tails
        assert not followed._tasks

    run(test)


def test_one_query_serves_all_streams_of_a_job(database: Database, lease: Lease) -> None:
    events = 5

    async def test() -> None:
        followed = Feed(database, Event(), poll_seconds=0.02)
        streams = [asyncio.create_task(all_of(followed, lease.job_id, 2)) for _ in range(1000)]
        await seen(followed, lease)
        with patch.object(jobs, "events", wraps=jobs.events) as queries:
            for _ in range(events):
                await asyncio.to_thread(report, database, lease)
            await asyncio.to_thread(finish, database, lease)
            found = await asyncio.gather(*streams)
        assert found == [list(range(3, 2 + events + 2))] * 1000
        assert queries.call_count <= events + 1

    run(test)


def test_postgresql_tells_of_an_event_at_once(postgres_url: str) -> None:
    database = Database(postgres_url)
    migrate.upgrade(database)
    held = running(database)

    async def test() -> None:
        # Only a notification can tell the feed before the test has failed.
        followed = Feed(database, Event(), poll_seconds=10 * DEADLINE_SECONDS)
        async with aclosing(followed.follow(held.job_id, 0, quiet_seconds=DEADLINE_SECONDS)) as stream:
            assert [row.number for row in await anext(stream)] == [1, 2]
            for number in (3, 4):
                await asyncio.to_thread(report, database, held)
                assert [row.number for row in await anext(stream)] == [number]

    run(test)
    database.close()


def test_a_stream_outlives_a_database_that_is_away(database: Database, lease: Lease) -> None:
    away, tries = True, list[int]()

    async def test() -> None:
        nonlocal away
        followed = Feed(database, Event(), poll_seconds=0.02)
        find = followed._find

        def unreliable(known: dict[str, int | None]) -> object:
            if away:
                tries.append(1)
                raise Away
            return find(known)

        with patch.object(followed, "_find", unreliable):
            stream = asyncio.create_task(all_of(followed, lease.job_id))
            await asyncio.to_thread(finish, database, lease)
            while len(tries) < 3:
                await asyncio.sleep(0.01)
            assert not stream.done()
            away = False
            assert await stream == [1, 2, 3]

    run(test)


def test_a_quiet_stream_says_so_and_a_stopping_server_ends_it(database: Database, lease: Lease) -> None:
    async def test() -> None:
        stopping = Event()
        followed = Feed(database, stopping, poll_seconds=DEADLINE_SECONDS)
        found: list[Sequence[JobEvent]] = []
        async with aclosing(followed.follow(lease.job_id, 2, quiet_seconds=0.05)) as stream:
            found += [await anext(stream) for _ in range(3)]
        assert found == [[], [], []]
        ending = asyncio.create_task(all_of(followed, lease.job_id, 2))
        await seen(followed, lease)
        stopping.set()
        assert await ending == []

    run(test)


def test_the_stream_of_a_job_that_is_not_there_ends(database: Database) -> None:
    async def test() -> None:
        assert await all_of(Feed(database, Event(), poll_seconds=0.02), "nothing") == []

    run(test)
