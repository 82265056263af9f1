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
    """ASGI middleware that answers limited bodies of more than `limit` bytes with 413.

    A body that announces its length is refused before it is read. The bytes of every other body are counted as they arrive.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or policy_of(scope).body == "streamed":
            await self.app(scope, receive, send)
            return
        text = f"the body is larger than {self.limit} bytes, the largest size that this service accepts"
        too_large = problems.TooLarge(text, limit=self.limit)
        request = Request(scope)
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
