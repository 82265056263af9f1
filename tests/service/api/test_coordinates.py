"""A list of coordinates in the body of a request: however it arrives, it is what was sent, and takes little memory."""

import asyncio
import json
import re
import tracemalloc
from collections.abc import AsyncIterator, Callable
from itertools import cycle, product
from typing import Any
from unittest.mock import MagicMock, patch

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError

from service import problems
from service.api import coordinates
from service.api.coordinates import Array, read_coordinates
from service.serving.selection import RUN_KERNELS, Listed
from service.store.database import Database
from tests.support.networks import odd, resnet8
from tests.support.representations import untrained
from tests.support.stored import store_predictor
from tests.support.waiting import DEADLINE_SECONDS

PIECE_BYTES = 64

LONG = f"[{'[0,0,0],' * 50}[0,0,0]]"


def read(body: bytes, received_bytes: int = 100) -> Array:
    """The coordinates in a body that arrives in parts of so many bytes."""
    parts = [body[start : start + received_bytes] for start in range(0, len(body), received_bytes)]

    async def receive() -> Any:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    return asyncio.run(read_coordinates(Request(scope, receive)))


def made(count: int) -> list[list[int]]:
    values = cycle([0, 7, -1, 123_456, 2**31 - 1, -(2**31), 40])
    return [[next(values), next(values), next(values)] for _ in range(count)]


WRITERS: dict[str, Callable[[Any], str]] = {
    "compact": lambda value: json.dumps(value, separators=(",", ":")),
    "as Python writes it": json.dumps,
    "indented": lambda value: json.dumps(value, indent=2),
    "with spaces everywhere": lambda value: json.dumps(value, indent=1, separators=(" \n\t, ", " : ")) + "  ",
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("piece_bytes", [100, 150, 1000, 10**6])
@pytest.mark.parametrize("received_bytes", [1, 61, 10**6])
def test_a_list_is_the_one_that_was_sent(write: Callable[[Any], str], piece_bytes: int, received_bytes: int) -> None:
    with patch.object(coordinates, "PIECE_BYTES", piece_bytes):
        for count in (0, 1, 2, 5, 60):
            sent = made(count)
            found = read(write({"coordinates": sent}).encode(), received_bytes)
            assert found.dtype == np.int32
            assert found.tolist() == sent


# Each of them in a short body, and behind coordinates enough to make it a long one.
MALFORMED = [
    "",
    "[",
    "{",
    '{"coordinates": [[0, 0, 0]',
    '{"coordinates": [[0, 0, 0],]}',
    '{"coordinates": [[0, 0, 0] [1, 1, 1]]}',
    '{"coordinates": [[0, 0, 0],, [1, 1, 1]]}',
    '{"coordinates": [[0, 0, 0]]}}',
    '{"coordinates": [[0, 0, 01]]}',
]


@pytest.mark.parametrize("body", MALFORMED)
@pytest.mark.parametrize("long", [False, True])
def test_what_is_no_json_is_malformed(body: str, long: bool) -> None:
    with patch.object(coordinates, "PIECE_BYTES", PIECE_BYTES if long else 10**6):
        text = body.replace("[[0", f"[{'[1, 2, 3],' * 50}[0") if long else body
        with pytest.raises((problems.BadRequest, RequestValidationError)) as raised:
            read(text.encode() or b" ")
    if isinstance(raised.value, RequestValidationError):
        assert [each["type"] for each in raised.value.errors()] == ["json_invalid"]


@pytest.mark.parametrize("coordinate", ['["0",0,0]', "[true,0,0]", "[0,0]", "[0,0,0,0]", "[0.5,0,0]", "null", "{}", "[[0],0,0]",
                                        "[2147483648,0,0]", f"[{'9' * 50},0,0]"])  # fmt: skip
@pytest.mark.parametrize("after", [0, 1, 200])
def test_a_coordinate_that_is_none_is_named(coordinate: str, after: int) -> None:
    body = '{"coordinates":[' + ",".join([*["[0,0,0]"] * 200, coordinate, *["[0,0,0]"] * after]) + "]}"
    with patch.object(coordinates, "PIECE_BYTES", PIECE_BYTES), pytest.raises(problems.Problem) as raised:
        read(body.encode())
    if isinstance(raised.value, problems.Invalid):
        assert raised.value.extra["errors"][0]["pointer"].startswith("/coordinates/200")
    else:  # a list in a coordinate
        assert isinstance(raised.value, problems.BadRequest)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"other": 1, "coordinates": {LONG}}}',
        LONG,
        f'{{"coordinates": {{"a": {LONG}}}}}',
        f'{{"coordinates": {LONG}, "a": 1}}',
    ],
)
def test_a_long_body_of_another_form_is_refused_with_the_form(body: str) -> None:
    form = re.escape('{"coordinates": [[layer, filter, channel], …]}')
    with patch.object(coordinates, "PIECE_BYTES", PIECE_BYTES), pytest.raises(problems.BadRequest, match=form):
        read(body.encode())


def test_no_more_than_a_piece_is_validated_at_once() -> None:
    """However much arrives at once: other requests wait meanwhile."""
    validate = MagicMock(side_effect=coordinates._ROWS.validate_json)
    body = f'{{"coordinates": {LONG}}}'.encode()
    with patch.object(coordinates, "PIECE_BYTES", PIECE_BYTES), patch.object(coordinates, "_ROWS", validate_json=validate):
        assert len(read(body, received_bytes=10**6)) == 51
    assert max(len(call.args[0]) for call in validate.call_args_list) <= PIECE_BYTES + len("[]")


def test_a_body_without_end_is_given_up_early() -> None:
    with pytest.raises(problems.BadRequest, match="malformed after 0 coordinates"):
        read(b'{"coordinates": [' + b" " * 10**6 + b"[0,0,0]]}", received_bytes=10_000)


def test_a_long_list_takes_twelve_bytes_a_coordinate() -> None:
    count = 50_000
    body = b'{"coordinates":[' + b",".join([b"[1000,1000,1000]"] * count) + b"]}"
    tracemalloc.start()
    try:
        found = read(body, received_bytes=2**16)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == count
    assert kept < 1.2 * 12 * count + 100_000
    assert most < len(body) + 3 * 12 * count, "the parts of the body, and the array twice"


def test_a_selection_keeps_the_order_of_a_list() -> None:
    layers = untrained(odd()).layers
    wanted = [(layer, filter, channel) for filter, layer, channel in product(range(4), (2, 0, 3), (0, 1))]
    wanted += [(0, 0, 1)] * (2 * RUN_KERNELS + 1)
    listed = Listed(layers, np.array(wanted, np.int32))
    runs = list(listed.runs())
    assert all(0 < len(run.indices) <= RUN_KERNELS for run in runs)
    found = [(run.layer, *divmod(index, layers[run.layer].channels)) for run in runs for index in run.indices.tolist()]
    assert found == wanted
    assert sum(count for count, _ in listed.shapes()) == len(wanted)
    empty = Listed(layers, np.empty((0, 3), np.int32))
    assert (list(empty.runs()), empty.shapes()) == ([], [])


def test_no_connection_to_the_database_is_held_while_a_body_arrives(app: FastAPI, database: Database) -> None:
    path = f"/v1/predictors/{store_predictor(database, resnet8())}/kernels"
    pool: Any = app.state.context.database.engine.pool
    held: list[int] = []
    messages: list[Any] = []

    async def body() -> AsyncIterator[bytes]:
        yield b'{"coordinates": '
        held.append(pool.checkedout())
        yield b"[[0, 0, 0]]}"

    parts = body()

    async def receive() -> Any:
        if (part := await anext(parts, None)) is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": part, "more_body": part != b"[[0, 0, 0]]}"}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http", "asgi": {"spec_version": "2.3"}, "method": "POST", "path": path, "query_string": b"", "scheme": "http",
        "server": ("test", 80), "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app(scope, receive, send), DEADLINE_SECONDS))
    assert messages[0]["status"] == 200
    assert held == [0]
