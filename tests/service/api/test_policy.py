"""Who may call which route, and how much body it takes: declared at the route, enforced before the body is read."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr
from starlette.routing import BaseRoute, Route

from service.api.app import create_app
from service.http.bodies import MAX_COMMAS
from service.http.policy import Policies, Policy, declared, policy
from service.settings import Settings
from service.store.database import Database

KEYS = {"read": "r" * 16, "write": "w" * 16, "admin": "a" * 16}


@pytest.fixture
def closed(settings: Settings, database: Database) -> FastAPI:
    """An application that asks for keys."""
    keys = SecretStr(",".join(f"{scope}:{key}" for scope, key in KEYS.items()))
    return create_app(settings.model_copy(update={"api_keys": keys}))


def every_route(routes: Sequence[BaseRoute]) -> Iterator[BaseRoute]:
    """The routes of an application, those of included routers too."""
    return (found.original_route for found in iter_route_contexts(routes))


def ask(
    app: FastAPI, method: str, path: str, scope: str | None = None, body: bytes | None = b"", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Calls the application without a server. A `body` of None must not be read."""
    messages: list[Any] = []
    read = False

    async def receive() -> Any:
        nonlocal read
        assert body is not None, "the body was read"
        if read:
            return {"type": "http.disconnect"}
        read = True
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        messages.append(message)

    sent = {**headers, **({"authorization": f"Bearer {KEYS[scope]}"} if scope else {})}
    asgi = {
        "type": "http", "asgi": {"spec_version": "2.3"}, "method": method, "path": path, "raw_path": path.encode(),
        "query_string": b"", "scheme": "http", "server": ("test", 80),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()],
    }  # fmt: skip
    asyncio.run(app(asgi, receive, send))
    answered = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    content = b"".join(message.get("body", b"") for message in messages[1:])
    problem = json.loads(content) if content and answered.get("content-type") == "application/problem+json" else None
    return messages[0]["status"], answered, problem


def test_every_route_declares_its_policy(app: FastAPI) -> None:
    routes = list(every_route(app.routes))
    assert len(routes) > 25
    for route in routes:
        assert declared(route), f"{getattr(route, 'path', route)} declares no policy: see service/http/policy.py"


def test_every_route_asks_for_the_scope_that_it_declares(closed: FastAPI) -> None:
    for route in every_route(closed.routes):
        assert isinstance(route, Route)
        found = declared(route)
        assert found
        for method in route.methods or ():
            for scope in (None, *KEYS):
                refused = found.access != "open" and (scope is None or list(KEYS).index(scope) < list(KEYS).index(found.access))
                status, headers, problem = ask(closed, method, route.path_format, scope, None if refused else b"")
                case = (method, route.path, scope, status)
                if refused:
                    assert status == (403 if scope else 401), case
                    assert headers.get("www-authenticate") == (None if scope else "Bearer"), case
                    assert problem["type"] == ("/problems/forbidden" if scope else "/problems/unauthorized")
                else:
                    assert status not in (401, 403), case


# What is open, what reads, what writes, what deletes, and whose body may be large: said once more than at the routes, so that
# a route is not opened by a slip.
POLICIES = {
    "GET /openapi.json": Policy("open"),
    "GET /docs": Policy("open"),
    "GET /docs/oauth2-redirect": Policy("open"),
    "GET /redoc": Policy("read"),
    "GET /livez": Policy("open"),
    "GET /readyz": Policy("open"),
    "GET /problems": Policy("open"),
    "GET /problems/{slug}": Policy("open"),
    "GET /v1/checkpoints": Policy("read"),
    "GET /v1/checkpoints/{id}": Policy("read"),
    "GET /v1/checkpoints/{id}/file": Policy("read"),
    "POST /v1/checkpoints": Policy("write", "streamed"),
    "DELETE /v1/checkpoints/{id}": Policy("admin"),
    "GET /v1/datasets": Policy("read"),
    "GET /v1/datasets/{id}": Policy("read"),
    "POST /v1/datasets": Policy("write", "streamed"),
    "DELETE /v1/datasets/{id}": Policy("admin"),
    "OPTIONS /v1/uploads": Policy("open"),
    "POST /v1/uploads": Policy("write", "streamed"),
    "HEAD /v1/uploads/{id}": Policy("write"),
    "PATCH /v1/uploads/{id}": Policy("write", "streamed"),
    "DELETE /v1/uploads/{id}": Policy("write"),
    "GET /v1/uploads/{id}": Policy("read"),
    "GET /v1/workers": Policy("read"),
    "GET /v1/queue": Policy("read"),
    "GET /v1/usage": Policy("read"),
    "GET /v1/{kind}/{id}/readers": Policy("read"),
    "PUT /v1/{kind}/{id}/readers": Policy("write"),
    "GET /v1/keys": Policy("admin"),
    "POST /v1/keys": Policy("admin"),
    "GET /v1/keys/{id}": Policy("admin"),
    "POST /v1/keys/{id}/rotate": Policy("admin"),
    "DELETE /v1/keys/{id}": Policy("admin"),
    "DELETE /v1/jobs/{id}": Policy("admin"),
    "GET /v1/jobs/{id}/deliveries": Policy("read"),
    "DELETE /v1/predictors/{id}": Policy("admin"),
    "GET /v1/jobs": Policy("read"),
    "GET /v1/jobs/{id}": Policy("read"),
    "GET /v1/jobs/{id}/events": Policy("read"),
    "POST /v1/jobs": Policy("write"),
    "POST /v1/jobs/{id}/cancel": Policy("write"),
    "POST /v1/jobs/{id}/pause": Policy("write"),
    "POST /v1/jobs/{id}/resume": Policy("write"),
    "POST /v1/jobs/{id}/retry": Policy("write"),
    "GET /v1/predictors": Policy("read"),
    "GET /v1/predictors/{id}": Policy("read"),
    "GET /v1/predictors/{id}/layers": Policy("read"),
    "GET /v1/predictors/{id}/figures/{name}.svg": Policy("read"),
    "GET /v1/predictors/{id}/file": Policy("read"),
    "GET /v1/predictors/{id}/kernels": Policy("read"),
    "POST /v1/predictors/{id}/kernels": Policy("read", body="long"),
    "PUT /v1/checkpoints/{id}/graph": Policy("write", body="streamed"),
    "GET /v1/predictors/{id}/model.onnx": Policy("read"),
    "GET /v1/predictors/{id}/weights": Policy("read"),
}


def test_what_is_open_what_reads_what_writes_and_what_deletes(app: FastAPI) -> None:
    found: dict[str, Policy | None] = {}
    for route in every_route(app.routes):
        assert isinstance(route, Route)
        methods = route.methods or set()
        # The pages that the framework makes answer HEAD as they answer GET.
        for method in methods - {"HEAD"} or methods:
            found[f"{method} {route.path}"] = declared(route)
    assert found == POLICIES


@pytest.mark.parametrize(
    ("method", "path", "scope", "status"),
    [
        ("GET", "/nowhere", None, 401),
        ("GET", "/nowhere", "read", 404),
        ("POST", "/nowhere", "read", 403),
        ("POST", "/nowhere", "write", 404),
        ("DELETE", "/nowhere", "write", 403),
        ("DELETE", "/nowhere", "admin", 404),
        ("PUT", "/v1/jobs", None, 401),
        ("PUT", "/v1/jobs", "read", 403),
        ("PUT", "/v1/jobs", "write", 405),
        ("DELETE", "/v1/jobs/x", "write", 403),
        ("DELETE", "/v1/jobs/x", "admin", 404),
        ("PUT", "/v1/jobs/x", "admin", 405),
        ("OPTIONS", "/v1/jobs", None, 401),
        ("OPTIONS", "/v1/jobs", "read", 204),
        ("HEAD", "/v1/jobs", None, 401),
        ("HEAD", "/v1/jobs", "read", 200),
        ("HEAD", "/v1/keys", "write", 403),
        ("HEAD", "/v1/keys", "admin", 200),
        ("HEAD", "/v1/jobs/x/cancel", "write", 405),
        ("BREW", "/v1/jobs", "write", 405),
        ("GET", "/v1/jobs/", None, 401),
        ("GET", "/v1/jobs/", "read", 404),
        ("POST", "/livez", None, 405),
        ("HEAD", "/livez", None, 200),
        ("GET", "/livez/", None, 404),
        ("GET", "/docs/nothing", None, 404),
        ("GET", "/problems/nope", None, 404),
        ("GET", "/redoc", None, 401),
    ],
)
def test_what_no_route_declares(closed: FastAPI, method: str, path: str, scope: str | None, status: int) -> None:
    assert ask(closed, method, path, scope, b"" if status == 200 else None)[0] == status


def test_a_key_that_is_unknown_is_none(closed: FastAPI) -> None:
    for value in ("Bearer nobody-has-this-key", "Basic " + KEYS["admin"], KEYS["admin"]):
        assert ask(closed, "GET", "/v1/jobs", body=None, authorization=value)[0] == 401
    assert ask(closed, "GET", "/v1/jobs", authorization=f"bearer {KEYS['read']}")[0] == 200


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/jobs"), ("PUT", "/v1/jobs"), ("POST", "/nowhere"), ("GET", "/livez")]
)
def test_a_body_that_announces_too_many_bytes_is_not_read(app: FastAPI, method: str, path: str) -> None:
    status, _, problem = ask(app, method, path, body=None, content_length="20001", content_type="application/json")
    assert (status, problem["type"], problem["limit"]) == (413, "/problems/too-large", 20_000)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/checkpoints", "/v1/predictors/x/kernels"])
def test_a_compressed_body_is_refused_before_it_is_read(app: FastAPI, path: str) -> None:
    status, headers, problem = ask(app, "POST", path, body=None, content_encoding="gzip", content_type="application/json")
    assert (status, headers["accept-encoding"], problem["type"]) == (415, "identity", "/problems/unsupported-media-type")
    assert ask(app, "POST", path, body=b"{", content_encoding="identity", content_type="application/json")[0] in (400, 415)


def test_a_body_of_too_many_values_is_given_up_while_it_arrives(settings: Settings, database: Database) -> None:
    """No other request is answered while a body is parsed."""
    app = create_app(settings.model_copy(update={"max_body_bytes": 10**6}))
    for body in (b"{" + b'"":0,' * MAX_COMMAS, b"[" * 5 + b"0," * MAX_COMMAS):
        assert ask(app, "POST", "/v1/jobs", body=body, content_type="application/json")[0] == 400
        status, _, problem = ask(app, "POST", "/v1/jobs", body=body + b"0,", content_type="application/json")
        assert (status, problem["type"], problem["detail"]) == (
            413,
            "/problems/too-large",
            "the body has more than 10000 values",
        )
    coordinates = b'{"coordinates": [' + b"[0,0,0]," * MAX_COMMAS + b"[0,0,0]]}"
    assert ask(app, "POST", "/v1/predictors/x/kernels", body=coordinates, content_type="application/json")[0] == 404


@pytest.mark.parametrize("path", ["/v1/checkpoints", "/v1/datasets"])
def test_a_streamed_body_has_a_limit_of_its_own(app: FastAPI, path: str) -> None:
    status, _, problem = ask(app, "POST", path, body=b"x" * 30_000, content_length="30000")
    assert (status, problem["type"]) == (422, "/problems/" + ("bad-dataset" if "datasets" in path else "not-a-checkpoint"))
    status, _, problem = ask(app, "POST", path, body=None, content_length="4000001")
    assert (status, problem["type"]) == (413, "/problems/too-large")


def test_a_route_that_declares_nothing_is_for_administrators() -> None:
    def endpoint() -> None: ...

    @policy("write", body="streamed")
    def other() -> None: ...

    routes = [Route("/a", endpoint), Route("/b", other, methods=["POST"])]
    policies = Policies(FastAPI(), routes)
    assert policies.find("GET", "/a") == Policy("admin", "limited")
    assert policies.find("POST", "/b") == Policy("write", "streamed")


def test_a_method_in_a_header_needs_the_scope_of_that_method(closed: FastAPI) -> None:
    for method, scope, status in [("GET", "read", 403), ("GET", "write", 404), ("OPTIONS", None, 401)]:
        path, override = "/v1/uploads/x", {"x_http_method_override": "DELETE", "tus_resumable": "1.0.0"}
        assert ask(closed, method, path, scope, b"", **override)[0] == status


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/checkpoints"])
def test_a_body_of_two_lengths_is_refused_before_it_is_read(app: FastAPI, path: str) -> None:
    status, headers, problem = ask(app, "POST", path, body=None, content_length="5", transfer_encoding="chunked")
    assert (status, headers["connection"], problem["type"]) == (400, "close", "/problems/bad-request")
    assert "Transfer-Encoding" in problem["detail"]
