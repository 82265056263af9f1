"""Limits of each owner: requests, jobs, stored bytes.

Answers tell about the limit of requests in the headers RateLimit-Policy and RateLimit
(draft-ietf-httpapi-ratelimit-headers-10).
"""

from fastapi import Request
from sqlalchemy.orm import Session
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.access.buckets import WINDOW_SECONDS, Buckets, Taken
from service.access.keys import caller_of
from service.http.errors import respond
from service.http.policy import policy_of
from service.settings import Settings
from service.store import jobs, retention


class RequestLimit:
    """ASGI middleware that takes a token from the bucket of the sender for each request, and answers 429 if there is none."""

    def __init__(self, app: ASGIApp, buckets: Buckets | None) -> None:
        self.app = app
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._buckets is None or policy_of(scope).access == "open":
            await self.app(scope, receive, send)
            return
        taken = await self._buckets.take(caller_of(scope).owner)
        headers = _headers(self._buckets.capacity, taken)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        if taken.allowed:
            await self.app(scope, receive, with_headers)
        else:
            problem = problems.TooManyRequests(
                f"an owner may send {self._buckets.capacity} requests a minute; try again in {taken.next_seconds} s",
                headers={"Retry-After": str(taken.next_seconds)},
            )
            await respond(Request(scope), problem)(scope, receive, with_headers)


def check_jobs(session: Session, settings: Settings) -> None:
    """Raises TooManyJobs if as many jobs of the owner wait as may wait."""
    if settings.owner_waiting_jobs and jobs.queue(session).queued >= settings.owner_waiting_jobs:
        raise problems.TooManyJobs(
            f"an owner may have {settings.owner_waiting_jobs} jobs that wait; cancel one, or try again when one has begun"
        )


def check_bytes(session: Session, settings: Settings, more: int) -> None:
    """Raises QuotaExceeded if the owner would have more bytes stored than it may have."""
    if not settings.owner_stored_bytes:
        return
    stored = retention.stored(session)
    if stored + more > settings.owner_stored_bytes:
        raise problems.QuotaExceeded(
            f"an owner may have {settings.owner_stored_bytes} bytes stored; {stored} are, and {more} more do not fit. Delete "
            "checkpoints, datasets or predictors",
            limit=settings.owner_stored_bytes,
        )


def _headers(capacity: int, taken: Taken) -> dict[str, str]:
    return {
        "RateLimit-Policy": f'"requests";q={capacity};w={WINDOW_SECONDS}',
        "RateLimit": f'"requests";r={taken.remaining};t={taken.full_seconds}',
    }
