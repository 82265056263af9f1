"""What each route asks of a request before any of its body is read: whose key, and how much body.

A route declares its policy with the decorator `policy` on its endpoint. Middleware enforces policies, because the framework
reads and parses bodies before a route's dependencies run.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

KeyScope = Literal["read", "write", "admin"]

Access = Literal["open"] | KeyScope

Body = Literal["limited", "streamed"]

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_DECLARED = "__policy__"
_IN_SCOPE = "nern.policy"


@dataclass(frozen=True)
class Policy:
    """`access` is the least scope of a key that may make the request, or "open" for everybody, without a key.

    A "limited" body may have as many bytes as the service accepts as JSON. The endpoint of a "streamed" body limits it itself.
    """

    access: Access
    body: Body = "limited"


def policy(access: Access, *, body: Body = "limited") -> Callable[[Endpoint], Endpoint]:
    """Declares the policy of a route: a decorator of its endpoint, below that of the router."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARED, Policy(access, body))
        return endpoint

    return declare


def declared(route: BaseRoute) -> Policy | None:
    """What a route declares, if it does."""
    return getattr(getattr(route, "endpoint", None), _DECLARED, None)


def policy_of(scope: Scope) -> Policy:
    """The policy that `Policies` has found for a request."""
    found: Policy = scope[_IN_SCOPE]
    return found


class Policies:
    """ASGI middleware: finds the policy of every request, for the middleware inside it to enforce.

    A request that no route takes ends in an error or a redirection. It needs a key too: of scope "read" for GET, HEAD and
    OPTIONS, "admin" for DELETE, else "write". Where the path starts with that of an open route, it needs none.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self.app = app
        self._routes = [route for route in routes if isinstance(route, Route)]
        self._open = tuple(route.path for route in self._routes if (found := declared(route)) and found.access == "open")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[_IN_SCOPE] = self.find(scope["method"], scope["path"])
        await self.app(scope, receive, send)

    def find(self, method: str, path: str) -> Policy:
        """The policy of a request."""
        for route in self._routes:
            if route.path_regex.match(path) and method in (route.methods or ()):
                # A route that declares nothing is closed, rather than open.
                return declared(route) or Policy("admin")
        if path.startswith(self._open):
            return Policy("open")
        if method in ("GET", "HEAD", "OPTIONS"):
            return Policy("read")
        return Policy("admin" if method == "DELETE" else "write")
