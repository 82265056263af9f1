"""Limits on request bodies that are read whole."""

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.http.errors import respond
from service.http.policy import policy_of


def require_json(request: Request) -> None:
    """Raises UnsupportedMediaType unless the body says that it is JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise problems.UnsupportedMediaType(f"{media_type or 'a body without type'} is not read here; send application/json")


class BodyLimit:
    """ASGI middleware: limited bodies of more than `limit` bytes are answered with 413, announced or not."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or policy_of(scope).body == "streamed":
            await self.app(scope, receive, send)
            return
        text = f"the body is larger than {self.limit} bytes, which is the most that is accepted here"
        request = Request(scope)
        if int(request.headers.get("content-length", 0)) > self.limit:
            await respond(request, problems.TooLarge(text, limit=self.limit))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise HTTPException(413, text)
            return message

        await self.app(scope, counted, send)
