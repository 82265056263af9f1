"""Counts the requests of the API: how long they take, and how many bytes they bring and get."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.policy import route_of
from service.metrics.counted import REQUEST_BYTES, REQUEST_SECONDS, REQUESTS_IN_PROGRESS, RESPONSE_BYTES

# Every other method is counted as OTHER. A client may send any word as a method.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"

# The route of requests that match none.
UNMATCHED = "unmatched"


class RequestMetrics:
    """ASGI middleware that counts requests by method, route and class of status.

    The route is the template (`/v1/jobs/{id}`), which `Policies` has found. So this middleware is inside of `Policies`. It is
    inside of the middleware that changes methods, and outside of all that answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        labels = scope["method"] if scope["method"] in METHODS else OTHER, route_of(scope) or UNMATCHED
        received = 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                REQUEST_SECONDS.labels(*labels, f"{message['status'] // 100}xx").observe(time.perf_counter() - started)
            elif body := message.get("body"):
                # The bytes of a long answer count while they are sent.
                RESPONSE_BYTES.labels(*labels).inc(len(body))
            await send(message)

        try:
            with REQUESTS_IN_PROGRESS.track_inprogress():
                await self.app(scope, counted_receive, counted_send)
        finally:
            if received:
                REQUEST_BYTES.labels(*labels).inc(received)
