"""The policy of each route: which scope of API key a request needs, and how its body is limited.

A route declares its policy with the decorator `policy` on its endpoint. Middleware enforces the policy before any of the body
is read. A dependency of the route could not, because the framework parses the body before the dependencies run.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

KeyScope = Literal["read", "write", "admin"]

Access = Literal["open"] | KeyScope

Body = Literal["limited", "long", "streamed"]

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_DECLARED = "__policy__"
_IN_SCOPE = "nern.policy"
_ROUTE_IN_SCOPE = "nern.route"


@dataclass(frozen=True)
class Policy:
    """Whose requests a route answers, and how large their bodies may be.

    `access` is the least scope that the API key must have. An "open" route needs no key. The framework parses "limited" bodies.
    They have at most `Settings.max_body_bytes`, and a limited number of values (`service/http/bodies.py`). A "long" body has at
    most `Settings.max_body_bytes`, and the endpoint reads it in pieces. A "streamed" body is limited by the endpoint alone.
    """

    access: Access
    body: Body = "limited"


def policy(access: Access, *, body: Body = "limited") -> Callable[[Endpoint], Endpoint]:
    """A decorator that declares the policy of a route. It stands below the decorator of the router, next to the endpoint."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARED, Policy(access, body))
        return endpoint

    return declare


def declared(route: BaseRoute) -> Policy | None:
    """The policy that a route declares, or None."""
    return getattr(getattr(route, "endpoint", None), _DECLARED, None)


def policy_of(scope: Scope) -> Policy:
    """The policy of a request, which `Policies` has found."""
    found: Policy = scope[_IN_SCOPE]
    return found


def route_of(scope: Scope) -> str | None:
    """The path of the route that a request matches, as it is declared: `/v1/jobs/{id}`. None if it matches no route."""
    found: str | None = scope.get(_ROUTE_IN_SCOPE)
    return found


class Policies:
    """ASGI middleware that finds the route and the policy of every request. The middleware inside this one enforces the policy.

    A request that matches no route is answered with an error or a redirection, but needs a key too: of scope "read" for GET,
    HEAD and OPTIONS, of scope "admin" for DELETE, else of scope "write". If its path starts with the path of an open route, the
    request needs no key.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self.app = app
        self._routes = [route for route in routes if isinstance(route, Route)]
        self._open = tuple(route.path for route in self._routes if (found := declared(route)) and found.access == "open")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            route = self._route(scope["method"], scope["path"])
            scope[_ROUTE_IN_SCOPE] = route.path if route else None
            scope[_IN_SCOPE] = self._policy(route, scope["method"], scope["path"])
        await self.app(scope, receive, send)

    def find(self, method: str, path: str) -> Policy:
        """The policy of a request with this method and path."""
        return self._policy(self._route(method, path), method, path)

    def _route(self, method: str, path: str) -> Route | None:
        """The route of a request. HEAD has that of GET, unless it has one of its own."""
        matching = [route for route in self._routes if route.path_regex.match(path)]
        wanted = ("HEAD", "GET") if method == "HEAD" else (method,)
        return next((route for each in wanted for route in matching if each in (route.methods or ())), None)

    def _policy(self, route: Route | None, method: str, path: str) -> Policy:
        if route:
            # A route that declares nothing must not be open by mistake.
            return declared(route) or Policy("admin")
        if path.startswith(self._open):
            return Policy("open")
        if method in ("GET", "HEAD", "OPTIONS"):
            return Policy("read")
        return Policy("admin" if method == "DELETE" else "write")
