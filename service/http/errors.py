"""Turns every exception into an answer of one shape: application/problem+json (RFC 9457)."""

import errno
import json
import logging
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic_core import PydanticSerializationError
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.http.fields import object_at, unknown_field
from service.http.methods import methods_of
from service.http.request_ids import request_id_of
from service.problems import Problem, shortened
from service.store.blobs import Full, Missing, Unreachable
from service.store.database import Away, WrongSchema
from service.store.marking import WrongBlobStore

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

# At most this many errors of a request are described, because a body may have a million.
DESCRIBED_ERRORS = 20


class BodyTooLarge(HTTPException):
    """Passes a problem through the framework, which makes 400 of every other error while it reads a body."""

    def __init__(self, problem: problems.TooLarge) -> None:
        super().__init__(problem.status, problem.detail)
        self.problem = problem


def install(app: FastAPI) -> None:
    """Makes the application answer every exception with a problem."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(Away, _on_database_error)
    app.add_exception_handler(Unreachable, _on_blobs_away)
    app.add_exception_handler(Missing, _on_lost_blob)
    app.add_exception_handler(OSError, _on_files)
    for kind in (DataError, UnicodeEncodeError, PydanticSerializationError):
        app.add_exception_handler(kind, _on_bad_text)


class Faults:
    """ASGI middleware that logs what no handler has caught, and answers with a problem if the answer has not begun.

    The framework would do so outside of all middleware, where a request has no id. A client that goes away while it sends its
    body is no fault, and nobody waits for an answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientDisconnect:
            pass
        except Exception:
            log.exception("an unforeseen error in a request")
            if not begun:
                await respond(Request(scope), fault())(scope, receive, send)


def document(problem: Problem, path: str = "", request_id: str | None = None, status: int | None = None) -> bytes:
    """The body of an answer about a problem. A request that could not be parsed has no path and no id."""
    body = {
        "type": f"/problems/{problem.slug}",
        "title": problem.title,
        "status": status or problem.status,
        "detail": problem.detail,
        "instance": shortened(path),
        **({"request_id": request_id} if request_id else {}),
        **problem.extra,
    }
    # json.dumps escapes everything but ASCII, so any text from the request can be encoded.
    return json.dumps(body).encode()


def respond(request: Request, problem: Problem, *, status: int | None = None) -> Response:
    """The response that tells a client about a problem. `status` takes the place of the problem's own status."""
    content = document(problem, request.scope["path"], request_id_of(request.scope), status)
    return Response(content, status or problem.status, problem.headers, media_type=MEDIA_TYPE)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return respond(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Handles exceptions of the web framework: an unknown route, a wrong method, a body that can't be parsed."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    path = request.scope["path"]
    if error.status_code == 404:
        return respond(request, problems.NotFound(f"there is no route {path}; /docs lists all routes"))
    if error.status_code == 405:
        # The framework names the methods of one route, and several routes may have this path.
        headers = {"Allow": ", ".join(methods_of(request.scope))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        return respond(request, problems.MethodNotAllowed(f"{path} has no method {request.method}", headers=headers))
    if error.status_code == 413:
        return respond(request, error.problem if isinstance(error, BodyTooLarge) else problems.TooLarge(str(error.detail)))
    return respond(request, problems.BadRequest(str(error.detail), headers=headers), status=error.status_code)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        reason = found[0].get("ctx", {}).get("error", "the parser failed")
        return respond(request, problems.BadRequest(f"the body is not JSON: {reason}"))
    details: dict[str, list[str]] = {}
    for item in found[:DESCRIBED_ERRORS]:
        pointer, detail = _describe(request, item, error.body)
        details.setdefault(pointer, []).append(detail)
    # A value that none of the members of a union can take has an error for each member.
    errors = [{"pointer": pointer, "detail": "; or: ".join(dict.fromkeys(each))} for pointer, each in details.items()]
    first = f"{errors[0]['pointer'] or 'the body'}: {errors[0]['detail']}"
    others = len(errors) - 1 + len(found[DESCRIBED_ERRORS:])
    return respond(request, problems.Invalid(f"{first} (and {others} more)" if others else first, errors=errors))


async def _on_database_error(request: Request, error: Exception) -> Response:
    log.error("the database can't be used", exc_info=error)
    wrong = "the database has another schema than this release needs; run `nern migrate`"
    detail = wrong if isinstance(error, WrongSchema) else "the database does not answer; try again"
    return respond(request, problems.Unavailable(detail))


async def _on_blobs_away(request: Request, error: Exception) -> Response:
    if isinstance(error, Full):
        log.error("the blob store is full", exc_info=error)
        return respond(request, storage_full())
    if isinstance(error, WrongBlobStore):
        log.error("the blob store can't be used: %s", error)
        return respond(request, problems.Unavailable("the blob store is not that of the service, or is not mounted"))
    log.error("the blob store does not answer", exc_info=error)
    return respond(request, problems.Unavailable("the blob store does not answer; try again"))


async def _on_lost_blob(request: Request, error: Exception) -> Response:
    log.error("a blob is lost: %s", error)
    return respond(request, lost())


async def _on_files(request: Request, error: Exception) -> Response:
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        log.error("the disk is full", exc_info=error)
        return respond(request, storage_full())
    log.error("an unforeseen error in a request", exc_info=error)
    return respond(request, fault())


def fault() -> Problem:
    """The problem of a request that met with a fault of the service."""
    return problems.Broken("the service has a fault, which has been logged")


def lost() -> Problem:
    """The problem of a checkpoint or dataset whose bytes are lost."""
    return problems.Lost("the bytes are not in the blob store any more; upload the same file again")


def storage_full() -> Problem:
    """The problem of a request that the service has no room for."""
    return problems.StorageFull("the service has no room left; nothing was kept")


async def _on_bad_text(request: Request, error: Exception) -> Response:
    """Handles text that is not valid Unicode (half a surrogate pair) or that the database can't hold (a NUL)."""
    log.warning("a value in a request can't be stored (%s)", type(error).__name__)
    return respond(request, problems.BadRequest("a value in the request has a character that is not allowed in names and ids"))


def _describe(request: Request, item: Any, body: Any) -> tuple[str, str]:
    """A pointer into the body or to a parameter, and a detail, for one error of pydantic."""
    source, *path = item["loc"]
    detail = item["msg"].removeprefix("Value error, ")
    if source != "body":
        return f"{source}:{'/'.join(str(part) for part in path)}", detail
    fields = list(_fields(path, body, missing=item["type"] == "missing"))
    if item["type"] == "extra_forbidden":
        # The parts of the path that are not fields of the body name the member of the union: the recipe, or the data source.
        place = f"in {path[-2]}" if path[:-1] != fields[:-1] else "here"
        detail = unknown_field(request, fields[:-1], fields[-1], place)
    elif item["type"] in ("model_attributes_type", "model_type", "dict_type"):
        detail = object_at(request, fields)
    return "".join(f"/{_escaped(part)}" for part in fields), detail


def _fields(path: list[Any], body: Any, *, missing: bool) -> Iterator[Any]:
    """The parts of a path of pydantic that are fields of the body. Other parts name members of unions.

    If `missing`, the last part is a field that the body lacks, and is included.
    """
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


def _escaped(part: Any) -> str:
    """A part of a JSON Pointer (RFC 6901, section 3)."""
    return str(part).replace("~", "~0").replace("/", "~1")
