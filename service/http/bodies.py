"""Request bodies that are read as a whole: their media type and their size are limited."""

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.http.errors import BodyTooLarge, respond
from service.http.policy import policy_of

# The most commas in a body that the framework parses. No other request is answered while it parses, and the time depends on the
# number of values, most of which have a comma beside them.
MAX_COMMAS = 10_000


def require_json(request: Request) -> None:
    """Raises UnsupportedMediaType unless the Content-Type of the request is application/json."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        sent = repr(media_type) if media_type else "a body without a Content-Type"
        raise problems.UnsupportedMediaType(f"this route does not read {sent}; send application/json")


def validate_media_type(request: Request) -> None:
    """Raises UnsupportedMediaType for a body that is not JSON, if the framework parses the body. A dependency of all routes."""
    has_body = "transfer-encoding" in request.headers or int(request.headers.get("content-length", 0)) > 0
    if has_body and getattr(request.scope["route"], "body_field", None):
        require_json(request)


class BodyLimit:
    """ASGI middleware that answers 413 to bodies with more than `limit` bytes or MAX_COMMAS, 400 to bodies of two lengths, and
    415 to compressed bodies.

    A body that announces too many bytes is refused before it is read. Bytes and commas are counted as they arrive. The policy
    of the route says what is limited.
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
            two_lengths = problems.BadRequest(
                "the request has both Content-Length and Transfer-Encoding; send one of them", headers={"Connection": "close"}
            )
            await respond(request, two_lengths)(scope, receive, send)
            return
        if (coding := request.headers.get("content-encoding", "identity").strip().lower()) != "identity":
            problem = problems.UnsupportedMediaType(
                f"this service reads no body with Content-Encoding {coding!r}; send the body as it is",
                headers={"Accept-Encoding": "identity"},
            )
            await respond(request, problem)(scope, receive, send)
            return
        body = policy_of(scope).body
        if body == "streamed":
            await self.app(scope, receive, send)
            return
        text = f"the body is larger than {self.limit} bytes, the largest size that this service accepts"
        too_large = problems.TooLarge(text, limit=self.limit)
        if int(request.headers.get("content-length", 0)) > self.limit:
            await respond(request, too_large)(scope, receive, send)
            return
        received = commas = 0

        async def counted() -> Message:
            nonlocal received, commas
            message = await receive()
            received += len(message.get("body", b""))
            commas += message.get("body", b"").count(b",")
            if received > self.limit:
                raise BodyTooLarge(too_large)
            if commas > MAX_COMMAS and body == "limited":
                raise BodyTooLarge(problems.TooLarge(f"the body has more than {MAX_COMMAS} values"))
            return message

        await self.app(scope, counted, send)
