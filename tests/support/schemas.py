"""Compares answers with the OpenAPI document."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import httpx


def assert_documented(answer: httpx.Response, document: Mapping[str, Any]) -> None:
    """Fails if the document has the route of an answer, but not its status or its media type."""
    path, method = answer.request.url.path, answer.request.method.lower()
    found: Mapping[str, Any] = next(
        (paths for template, paths in document["paths"].items() if _pattern(template).fullmatch(path)), {}
    )
    if method not in found:
        return
    responses = found[method]["responses"]
    asked = f"{method} {path} was answered with {answer.status_code}"
    assert str(answer.status_code) in responses, f"{asked}; documented are {', '.join(responses)}"
    documented = responses[str(answer.status_code)].get("content", {})
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    assert media_type in documented or not (media_type or documented), f"{asked} and {media_type}; documented are {documented}"
    if media_type == "application/problem+json" and method != "head":
        names = document["components"]["schemas"]["ProblemDocument"]["properties"]
        answer.read()
        assert {"type", "title", "status", "detail", "instance", "request_id"} <= answer.json().keys() & names.keys()


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{[a-z]+\}", "[^/]+", template))


def answer_schema(document: Mapping[str, Any], path: str, method: str = "get", status: str = "200") -> Any:
    """The schema of the JSON that a route answers with."""
    return document["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]


def undocumented(value: Any, schema: Mapping[str, Any], document: Mapping[str, Any], pointer: str = "") -> list[str]:
    """Pointers to the fields of an answer that its schema does not name, that have another type, or that are missing.

    The fields of an object whose schema names no fields are not looked at.
    """
    return list(_undocumented(value, schema, document, pointer))


def _undocumented(value: Any, schema: Mapping[str, Any], document: Mapping[str, Any], pointer: str) -> Iterator[str]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if branches := schema.get("anyOf") or schema.get("oneOf"):
        yield from min((undocumented(value, branch, document, pointer) for branch in branches), key=len)
    elif "const" in schema or "enum" in schema:
        if value not in schema.get("enum", [schema.get("const")]):
            yield f"{pointer}={value}"
    elif not isinstance(value, _TYPES[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean"):
        yield f"{pointer} is no {schema['type']}"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _undocumented(item, schema["items"], document, f"{pointer}/{index}")
    elif isinstance(value, dict):
        yield from (f"{pointer}/{name} is missing" for name in schema.get("required", []) if name not in value)
        others = schema.get("additionalProperties")
        for name, item in value.items():
            if known := schema.get("properties", {}).get(name):
                yield from _undocumented(item, known, document, f"{pointer}/{name}")
            elif isinstance(others, dict):
                yield from _undocumented(item, others, document, f"{pointer}/{name}")
            elif "properties" in schema:
                yield f"{pointer}/{name}"


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
    "null": (type(None),),
}  # fmt: skip
