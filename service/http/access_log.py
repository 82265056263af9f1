"""One line of the log about each request."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.policy import policy_of, route_of

log = logging.getLogger(__name__)


class AccessLog:
    """ASGI middleware that logs each request when it is over: what was asked and answered, and how long that took.

    The query is not logged, because clients put secrets there. A request to an open route that succeeds is logged at level
    debug: there are probes every few seconds.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, size = time.monotonic(), None, 0

        async def watched(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            seconds = round(time.monotonic() - started, 3)
            usual = policy_of(scope).access == "open" and status is not None and status < 400
            log.log(
                logging.DEBUG if usual else logging.INFO,
                "%s %s: %s after %g s",
                scope["method"],
                scope["path"],
                status or "no answer",
                seconds,
                extra={
                    "method": scope["method"],
                    "path": scope["path"],
                    "route": route_of(scope),
                    "status": status,
                    "seconds": seconds,
                    "size": size,
                    "client": scope["client"][0] if scope.get("client") else None,
                },
            )
