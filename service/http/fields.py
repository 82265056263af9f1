"""What a request may contain: the fields of its body and the parameters of its URL, for messages about a wrong one.

The OpenAPI document of the application says it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from service import problems

# A message lists the possible names if there are so many at the most.
LISTED_NAMES = 8

# The least similarity, from 0 to 1, of a name and what was perhaps meant.
SIMILARITY = 0.7

Schema = Mapping[str, Any]


async def validate_parameters(request: Request) -> None:
    """Raises Invalid for a parameter of the URL that the route does not have. A dependency of all routes of resources."""
    if not request.query_params:
        return
    # The document is made when it is first asked for, which takes a while.
    await run_in_threadpool(request.app.openapi)
    if not (operation := _operation(request)):
        return
    known = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
    for name in request.query_params:
        if name not in known:
            detail = f"there is no parameter {name[:100]!r} here{_suggestion(name, known)}"
            raise problems.Invalid(detail, errors=[{"pointer": f"query:{name[:100]}", "detail": detail}])


def unknown_field(request: Request, path: Sequence[Any], name: str, place: str) -> str:
    """Why the body has no field of this name in the object that `path` leads to, which a message calls `place`."""
    fields = _fields_at(request, path)
    inner = [field for field, found in fields.items() if name in found]
    hint = f"; it belongs into `{inner[0]}`" if inner else _suggestion(name, fields)
    return f"there is no field {name[:100]!r} {place}{hint}"


def object_at(request: Request, path: Sequence[Any]) -> str:
    """What the body must have where `path` leads, if something else than an object is there."""
    return f"this must be a JSON object{_suggestion('', _fields_at(request, path))}"


def _suggestion(name: str, known: Iterable[str]) -> str:
    """The name that was perhaps meant, or all names if there are few; "" if neither helps."""
    names = list(known)
    # The comparison takes time and memory in proportion to the length of the name.
    if close := get_close_matches(name[:100], names, 1, SIMILARITY):
        return f"; did you mean `{close[0]}`?"
    return f"; possible: {', '.join(names)}" if 0 < len(names) <= LISTED_NAMES else ""


def _operation(request: Request) -> Schema:
    """The description of the route that answers the request, or nothing for a route that is not documented."""
    route = request.scope["route"]
    methods = request.app.openapi()["paths"].get(route.path, {})
    # A route for GET may answer HEAD too.
    return next((methods[method.lower()] for method in (request.method, *route.methods) if method.lower() in methods), {})


def _fields_at(request: Request, path: Sequence[Any]) -> dict[str, set[str]]:
    """The fields of the objects that may stand where a path in the body leads, each with the fields inside it."""
    document = request.app.openapi()
    content = _operation(request).get("requestBody", {}).get("content", {})
    objects = list(_objects(content.get("application/json", {}).get("schema", {}), document))
    for name in path:
        objects = [inner for each in objects for inner in _objects(each["properties"].get(name, {}), document)]
    fields: dict[str, set[str]] = {}
    for each in objects:
        for field, schema in each["properties"].items():
            fields.setdefault(field, set()).update(name for inner in _objects(schema, document) for name in inner["properties"])
    return fields


def _objects(schema: Schema, document: Schema) -> Iterator[Schema]:
    """The schemas of objects that a schema allows."""
    if "$ref" in schema:
        yield from _objects(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    for union in ("anyOf", "oneOf", "allOf"):
        for member in schema.get(union, []):
            yield from _objects(member, document)
    if "properties" in schema:
        yield schema
