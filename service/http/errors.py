"""One shape for every error: application/problem+json."""

import json
import logging
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic_core import PydanticSerializationError
from sqlalchemy.exc import DataError, OperationalError, TimeoutError
from starlette.exceptions import HTTPException

from service import problems
from service.problems import Problem
from service.store.blobs import Unreachable

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

# Of a request's errors, so many are described: a body may have a million.
DESCRIBED = 20


def install(app: FastAPI) -> None:
    """Makes the application answer every failure with a problem."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    for away in (OperationalError, TimeoutError):
        app.add_exception_handler(away, _on_database_error)
    app.add_exception_handler(Unreachable, _on_blobs_away)
    for kind in (DataError, UnicodeEncodeError, PydanticSerializationError):
        app.add_exception_handler(kind, _on_bad_text)
    app.add_exception_handler(Exception, _on_fault)


def respond(request: Request, problem: Problem, *, status: int | None = None) -> Response:
    """A problem as a response."""
    body = {
        "type": f"/problems/{problem.slug}",
        "title": problem.title,
        "status": status or problem.status,
        "detail": problem.detail,
        "instance": request.url.path,
        **problem.extra,
    }
    # Whatever the request brought along comes out as ASCII here.
    return Response(json.dumps(body), status or problem.status, problem.headers, media_type=MEDIA_TYPE)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return respond(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """What the framework itself raises: unknown routes, wrong methods, bodies that are not JSON."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    path = request.url.path
    if error.status_code == 404:
        return respond(request, problems.NotFound(f"there is no {path}; /docs lists what there is"))
    if error.status_code == 405:
        return respond(request, problems.MethodNotAllowed(f"{path} has no method {request.method}", headers=headers))
    if error.status_code == 413:
        return respond(request, problems.TooLarge(str(error.detail)))
    return respond(request, problems.BadRequest(str(error.detail), headers=headers), status=error.status_code)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        reason = found[0].get("ctx", {}).get("error", "it can't be parsed")
        return respond(request, problems.BadRequest(f"the body is not JSON: {reason}"))
    errors = [_describe(item, error.body) for item in found[:DESCRIBED]]
    first = f"{errors[0]['pointer'] or 'the body'}: {errors[0]['detail']}"
    detail = first if len(found) == 1 else f"{first} (and {len(found) - 1} more)"
    return respond(request, problems.Invalid(detail, errors=errors))


async def _on_database_error(request: Request, error: Exception) -> Response:
    log.error("the database does not answer", exc_info=error)
    return respond(request, problems.Unavailable("the database does not answer; try again", headers={"Retry-After": "5"}))


async def _on_blobs_away(request: Request, error: Exception) -> Response:
    log.error("the blob store does not answer", exc_info=error)
    return respond(request, problems.Unavailable("the blob store does not answer; try again", headers={"Retry-After": "5"}))


async def _on_bad_text(request: Request, error: Exception) -> Response:
    """Text that is no Unicode, or that the database can't hold: half a surrogate pair, a NUL."""
    return respond(request, problems.BadRequest("a value in the request has characters that no name or id can have"))


async def _on_fault(request: Request, error: Exception) -> Response:
    return respond(request, problems.Broken("something went wrong here, and has been logged"))


def _describe(item: Any, body: Any) -> dict[str, str]:
    source, *path = item["loc"]
    detail = item["msg"].removeprefix("Value error, ")
    if source != "body":
        return {"pointer": f"{source}:{'/'.join(str(part) for part in path)}", "detail": detail}
    fields = list(_fields(path, body, missing=item["type"] == "missing"))
    if item["type"] == "extra_forbidden":
        # The recipe is not among the fields, but pydantic says which one it took the body for.
        detail = f"{path[-2]} has no such field" if path[:-1] != fields[:-1] else "there is no such field"
    return {"pointer": "".join(f"/{part}" for part in fields), "detail": detail}


def _fields(path: list[Any], body: Any, *, missing: bool) -> Iterator[Any]:
    """The parts of a path that are in the body, but for a last one that is missing: pydantic names members of unions too."""
    found = True
    for part in path:
        if isinstance(body, list):
            found = isinstance(part, int) and part < len(body)
        else:
            found = isinstance(body, dict) and part in body
        if found:
            body = body[part]
            yield part
    if missing and not found:
        yield path[-1]
