"""Token buckets: how many requests an owner may still send.

A bucket holds at most `capacity` tokens, and gets `capacity` tokens a minute. A request takes one. The buckets are in Redis if
there is one, so that all replicas take from the same. While Redis does not answer, each replica has buckets of its own: a
limit is no reason to make requests wait.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import redis.asyncio
from cachetools import LRUCache
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

WINDOW_SECONDS = 60

# The most buckets that a replica keeps in memory.
MAX_BUCKETS = 100_000

# How long a request waits for Redis, and how long Redis is left alone after it has not answered.
REDIS_SECONDS = 0.25
AWAY_SECONDS = 5.0

# Takes a token. Arguments: capacity, tokens a second. Returns 1 or 0, and the tokens that are left.
SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local capacity, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local tokens = math.min(capacity, (tonumber(kept[1]) or capacity) + math.max(0, now - (tonumber(kept[2]) or now)) * rate)
local taken = tokens >= 1 and 1 or 0
tokens = tokens - taken
redis.call('HSET', KEYS[1], 'tokens', tokens, 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(capacity / rate * 1000))
return {taken, tostring(tokens)}
"""


@dataclass(frozen=True)
class Taken:
    """Whether a token was taken, how many are left, and after how many seconds the next one comes, and the bucket is full."""

    allowed: bool
    remaining: int
    next_seconds: int
    full_seconds: int


class Buckets(Protocol):
    """The buckets of all owners."""

    capacity: int

    async def take(self, owner: str) -> Taken:
        """Takes a token from the bucket of an owner, if it has one. Raises nothing."""
        ...

    async def close(self) -> None:
        """Ends all connections."""
        ...


class InMemory:
    """Buckets of this process. `seconds` is a clock."""

    def __init__(self, capacity: int, seconds: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self._seconds = seconds
        self._buckets: LRUCache[str, tuple[float, float]] = LRUCache(MAX_BUCKETS)

    async def take(self, owner: str) -> Taken:
        now = self._seconds()
        tokens, at = self._buckets.get(owner, (float(self.capacity), now))
        tokens = min(self.capacity, tokens + (now - at) * self.capacity / WINDOW_SECONDS)
        allowed = tokens >= 1
        tokens -= allowed
        self._buckets[owner] = (tokens, now)
        return taken(self.capacity, allowed, tokens)

    async def close(self) -> None:
        pass


class InRedis:
    """Buckets of all replicas."""

    def __init__(self, capacity: int, url: str) -> None:
        self.capacity = capacity
        self._own = InMemory(capacity)
        timeouts: dict[str, Any] = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
        self._redis = redis.asyncio.Redis.from_url(url, decode_responses=True, **timeouts)
        self._script = self._redis.register_script(SCRIPT)
        self._away_until = 0.0

    async def take(self, owner: str) -> Taken:
        if time.monotonic() < self._away_until:
            return await self._own.take(owner)
        try:
            arguments = [self.capacity, self.capacity / WINDOW_SECONDS]
            allowed, tokens = await self._script(keys=[f"nern:requests:{owner}"], args=arguments)
        except (RedisError, OSError) as error:
            log.warning("Redis does not answer, so each replica limits requests by itself: %s", error)
            self._away_until = time.monotonic() + AWAY_SECONDS
            return await self._own.take(owner)
        return taken(self.capacity, bool(allowed), float(tokens))

    async def close(self) -> None:
        await self._redis.aclose()


def taken(capacity: int, allowed: bool, tokens: float) -> Taken:
    """What is told about a bucket with so many tokens."""
    rate = capacity / WINDOW_SECONDS
    return Taken(allowed, int(tokens), ceil(max(0.0, 1 - tokens) / rate), ceil((capacity - tokens) / rate))


def make_buckets(requests_per_minute: int, redis_url: str | None) -> Buckets | None:
    """The buckets for a limit; None for the limit 0, which is none."""
    if not requests_per_minute:
        return None
    return InRedis(requests_per_minute, redis_url) if redis_url else InMemory(requests_per_minute)
