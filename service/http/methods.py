"""The methods of each path: which ones a path has, and HEAD wherever there is GET (RFC 9110, section 9.3.2)."""

from collections.abc import Iterable, Sequence

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_IN_SCOPE = "nern.methods"
_HEAD = "nern.head"


def methods_of(scope: Scope) -> Sequence[str]:
    """The methods that the path of a request has, in the order of the alphabet."""
    found: Sequence[str] = scope[_IN_SCOPE]
    return found


def is_head(scope: Scope) -> bool:
    """Whether a request that is carried out as GET is HEAD, so that no body need be made."""
    return _HEAD in scope


class Methods:
    """ASGI middleware that finds the methods of the path of every request, and answers HEAD as GET without the body.

    This middleware is inside of all others, which see the method that was sent. A path that has a route for HEAD is left to
    that route.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self.app = app
        self._routes = [route for route in routes if isinstance(route, Route)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = {name for route in self._routes if route.path_regex.match(scope["path"]) for name in route.methods or ()}
        implied = {"OPTIONS", "HEAD"} if "GET" in declared else {"OPTIONS"}
        scope = {**scope, _IN_SCOPE: sorted(declared | implied)}
        if scope["method"] != "HEAD" or "HEAD" in declared or "GET" not in declared:
            await self.app(scope, receive, send)
            return

        async def head_alone(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                # The answer is complete. A server tells its sender that nobody listens any more, so a stream ends.
                await send({"type": "http.response.body", "body": b""})

        await self.app({**scope, "method": "GET", _HEAD: True}, receive, head_alone)
