"""The list of coordinates in the body of a request, which may have a million of them.

A Python list of a million coordinates takes 200 MB, and nothing else is answered while it is made. So a long list is validated
in pieces while it arrives, each within some milliseconds, and kept as an array.
"""

import asyncio
import json
import re
from array import array
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Annotated, Any, TypeAlias

import numpy as np
from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictInt, TypeAdapter, ValidationError

from service import problems
from service.http.bodies import require_json

# A longer body is validated in pieces of at most so many bytes.
PIECE_BYTES = 32 * 2**10

# What does not fit into 32 bits is outside of every network.
Index = Annotated[StrictInt, Field(ge=-(2**31), lt=2**31)]

Rows = Annotated[list[tuple[Index, Index, Index]], Field(fail_fast=True)]

Array = NDArray[np.int32]

# The numbers of all coordinates, one after the other.
Numbers: TypeAlias = "array[int]"


class Coordinates(BaseModel):
    """A list of kernels. The answer has the kernels in the same order."""

    model_config = ConfigDict(extra="forbid")

    coordinates: Rows = Field(description="Layer, filter and channel of each kernel, numbered from 0")


# The framework does not read the body, so it can't derive the schema of the body from the signature.
BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": Coordinates.model_json_schema()}}}
}

_ROWS: TypeAdapter[list[tuple[int, int, int]]] = TypeAdapter(Rows)
_START = re.compile(rb'\s*\{\s*"coordinates"\s*:\s*\[')
_END = re.compile(rb"\]\s*\}\s*\Z")

# One thread for all requests: another request then waits for one piece at a time, and not for a piece of each long body.
_THREAD = ThreadPoolExecutor(1, "coordinates")


async def read_coordinates(request: Request) -> Array:
    """The coordinates in the body of a request, int32 (n, 3).

    Raises UnsupportedMediaType, BadRequest, Invalid and RequestValidationError.
    """
    require_json(request)
    text, numbers = bytearray(), array("i")
    is_long = False
    async for received in request.stream():
        text += received
        while len(text) >= PIECE_BYTES:
            if not is_long:
                _take_start(text)
                is_long = True
            await asyncio.get_running_loop().run_in_executor(_THREAD, _take_piece, text, numbers)
    if is_long:
        _take_end(text, numbers)
    else:
        _take_short(bytes(text), numbers)
    return np.asarray(numbers).reshape(-1, 3)


Listing = Annotated[Array, Depends(read_coordinates)]


def _take_short(text: bytes, numbers: Numbers) -> None:
    """Takes the coordinates from a short body. Raises RequestValidationError."""
    try:
        numbers.extend(chain.from_iterable(Coordinates.model_validate_json(text).coordinates))
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        is_json = errors[0]["type"] != "json_invalid"
        raise RequestValidationError(errors, body=json.loads(text) if is_json else None) from error


def _take_start(text: bytearray) -> None:
    """Takes what stands before the first coordinate from a long body."""
    if not (start := _START.match(text)):
        raise _malformed(0)
    del text[: start.end()]


def _take_piece(text: bytearray, numbers: Numbers) -> None:
    """Takes at most PIECE_BYTES of coordinates from a long body."""
    # There is no list in a coordinate. So all coordinates before the last bracket are complete.
    end = text.rfind(b"[", 1, PIECE_BYTES)
    piece = text[: max(end, 0)].rstrip()
    if not piece.endswith(b","):
        raise _malformed(len(numbers) // 3)
    _take_list(piece[:-1], numbers)
    del text[:end]


def _take_end(text: bytearray, numbers: Numbers) -> None:
    """Takes the last coordinates from a long body."""
    if not (end := _END.search(text)):
        raise _malformed(len(numbers) // 3)
    _take_list(text[: end.start()], numbers)


def _take_list(text: bytearray, numbers: Numbers) -> None:
    count = len(numbers) // 3
    try:
        rows = _ROWS.validate_json(b"[" + text + b"]")
    except ValidationError as error:
        found = error.errors()[0]
        if found["type"] == "json_invalid":
            raise _malformed(count) from error
        index, *rest = found["loc"]
        pointer = "/".join(map(str, ["/coordinates", count + int(index), *rest]))
        raise problems.Invalid(f"{pointer}: {found['msg']}", errors=[{"pointer": pointer, "detail": found["msg"]}]) from error
    numbers.extend(chain.from_iterable(rows))


def _malformed(count: int) -> problems.BadRequest:
    return problems.BadRequest(
        f"the body is malformed after {count} coordinates; a long body must have this form, and no other field: "
        '{"coordinates": [[layer, filter, channel], …]}'
    )
