"""Token buckets, in memory and in a real Redis."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.access.buckets import AWAY_SECONDS, InMemory, InRedis, Taken, make_buckets
from tests.support.servers import own_redis


def take(buckets: Any, owners: Sequence[str]) -> list[Taken]:
    """Takes a token for each of these owners, one after the other."""

    async def run() -> list[Taken]:
        return [await buckets.take(owner) for owner in owners]

    return asyncio.run(run())


def test_a_bucket_is_full_at_first_and_fills_again() -> None:
    now = 100.0
    buckets = InMemory(60, lambda: now)
    first = take(buckets, ["one"] * 61)
    assert [taken.allowed for taken in first] == [True] * 60 + [False]
    assert first[0] == Taken(True, 59, 0, 1)
    assert first[-1] == Taken(False, 0, 1, 60)
    now += 1.5
    assert [taken.allowed for taken in take(buckets, ["one"] * 2)] == [True, False]
    now += 3600
    assert take(buckets, ["one"])[0].remaining == 59


def test_each_owner_has_a_bucket() -> None:
    buckets = InMemory(1, lambda: 0.0)
    assert [taken.allowed for taken in take(buckets, ["one", "two", "one", "two"])] == [True, True, False, False]


def test_replicas_take_from_the_same_bucket_in_redis(redis_url: str) -> None:
    async def run() -> list[bool]:
        replicas = [InRedis(4, redis_url) for _ in range(2)]
        taken = [(await replicas[number % 2].take("shared")).allowed for number in range(5)]
        other = await replicas[0].take("other")
        assert (other.allowed, other.remaining) == (True, 3)
        lasts = await replicas[0]._redis.pttl("nern:requests:shared")
        assert 55_000 < lasts <= 60_000
        for replica in replicas:
            await replica.close()
        return taken

    assert asyncio.run(run()) == [True] * 4 + [False]


def test_a_bucket_in_redis_fills_again(redis_url: str) -> None:
    async def run() -> None:
        buckets = InRedis(600, redis_url)
        while (await buckets.take("fills")).allowed:
            pass
        deadline = time.monotonic() + 60
        while not (await buckets.take("fills")).allowed:
            assert time.monotonic() < deadline
        await buckets.close()

    asyncio.run(run())


def test_without_redis_each_replica_limits_by_itself_and_asks_no_more(tmp_path: Path) -> None:
    with own_redis(tmp_path / "redis") as url:
        pass

    async def run() -> None:
        buckets = InRedis(2, url)
        assert [(await buckets.take("one")).allowed for _ in range(3)] == [True, True, False]
        assert time.monotonic() < buckets._away_until <= time.monotonic() + AWAY_SECONDS
        await buckets.close()

    asyncio.run(run())


def test_no_limit_needs_no_buckets() -> None:
    assert make_buckets(0, "redis://localhost") is None
    assert isinstance(make_buckets(1, None), InMemory)
