"""The OpenAPI document, with every problem that a route can answer with.

Most problems follow from the policy of a route, its path and its body. The decorator `raises` on an endpoint names the others.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel, Field

from service import problems
from service.http.errors import MEDIA_TYPE
from service.http.policy import Policy, declared
from service.problems import Problem

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_RAISED = "__raises__"


def raises(*kinds: type[Problem]) -> Callable[[Endpoint], Endpoint]:
    """A decorator that names kinds of problems which do not follow from the route. It stands below `policy`."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _RAISED, kinds)
        return endpoint

    return declare


class FieldError(BaseModel):
    """What is wrong with one part of a request."""

    pointer: str = Field(description="A JSON Pointer into the body, or query:NAME, header:NAME or path:NAME")
    detail: str


class ProblemDocument(BaseModel):
    """Why a request failed (RFC 9457). Some kinds of problems have more members."""

    type: str = Field(description="Path of the description of this kind of problem")
    title: str
    status: int
    detail: str
    instance: str = Field(description="Path of the request; empty if the request could not be parsed")
    request_id: str | None = Field(
        None, description="The header X-Request-ID of the answer; missing if the request could not be parsed"
    )
    errors: list[FieldError] | None = Field(None, description="The errors of a request that is invalid")


class DocumentedApp(FastAPI):
    """An application whose OpenAPI document has the problems of each route, and the scope of API key that it needs."""

    _document: dict[str, Any] | None = None

    def openapi(self) -> dict[str, Any]:
        """The document. It is made when it is first asked for."""
        if self._document is None:
            document = deepcopy(super().openapi())
            for context in iter_route_contexts(self.routes):
                route = context.original_route
                if isinstance(route, APIRoute) and route.include_in_schema:
                    for method in route.methods or ():
                        _complete(document["paths"][route.path_format][method.lower()], route)
            components = document["components"]
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
            components["schemas"] |= {**schema.pop("$defs"), ProblemDocument.__name__: schema}
            for name in ("HTTPValidationError", "ValidationError"):  # the framework's own, which no route answers with
                components["schemas"].pop(name, None)
            self._document = document
        return self._document


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    """Adds to an operation what follows from its route."""
    policy = declared(route) or Policy("admin")
    if policy.access != "open":
        operation["security"] = [{"key": [policy.access]}]
    kinds = [*_implied(operation, route, policy), *getattr(route.endpoint, _RAISED, ())]
    for status in sorted({kind.status for kind in kinds}):
        titles = dict.fromkeys(kind.title for kind in kinds if kind.status == status)
        schema = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}
        operation["responses"][str(status)] = {"description": ", ".join(titles), "content": {MEDIA_TYPE: {"schema": schema}}}


def _implied(operation: dict[str, Any], route: APIRoute, policy: Policy) -> Iterator[type[Problem]]:
    """The kinds of problems that follow from a route."""
    yield from (problems.BadRequest, problems.TooLarge, problems.LongURL, problems.LongHeaders, problems.Broken)
    if policy.access != "open":
        yield from (problems.Unauthorized, problems.Forbidden, problems.TooManyRequests, problems.Unavailable)
    if policy.access != "open" or "parameters" in operation:
        yield problems.Invalid
    if "{" in route.path_format:
        yield problems.NotFound
    if "requestBody" in operation:
        yield problems.UnsupportedMediaType
    if policy.body == "streamed":
        yield problems.StorageFull
