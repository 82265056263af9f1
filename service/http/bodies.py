"""Request bodies that are read as a whole: their media type and their size are limited."""

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.http.errors import BodyTooLarge, respond
from service.http.policy import policy_of


def require_json(request: Request) -> None:
    """Raises UnsupportedMediaType unless the Content-Type of the request is application/json."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        sent = repr(media_type) if media_type else "a body without a Content-Type"
        raise problems.UnsupportedMediaType(f"this route does not read {sent}; send application/json")


class BodyLimit:
    """ASGI middleware that answers limited bodies of more than `limit` bytes with 413, and bodies of two lengths with 400.

    A body that announces its length is refused before it is read. The bytes of every other body are counted as they arrive.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        if {"content-length", "transfer-encoding"} <= set(request.headers):
            # A proxy may believe the other header, and take the end of this body for a request (RFC 9112, section 6.1).
            problem = problems.BadRequest(
                "the request has both Content-Length and Transfer-Encoding; send one of them", headers={"Connection": "close"}
            )
            await respond(request, problem)(scope, receive, send)
            return
        if policy_of(scope).body == "streamed":
            await self.app(scope, receive, send)
            return
        text = f"the body is larger than {self.limit} bytes, the largest size that this service accepts"
        too_large = problems.TooLarge(text, limit=self.limit)
        if int(request.headers.get("content-length", 0)) > self.limit:
            await respond(request, too_large)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise BodyTooLarge(too_large)
            return message

        await self.app(scope, counted, send)
