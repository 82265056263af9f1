"""Lists as clients see them: opaque cursors, bounded pages."""

import base64
import binascii
import re
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel

from service import problems

MAX_LIMIT = 200

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, description=f"Items a page, at most {MAX_LIMIT}; more is taken as {MAX_LIMIT}")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before")]


class ListOf(BaseModel, Generic[Item]):
    """One page, newest first; `next_cursor` is null on the last one."""

    items: list[Item]
    next_cursor: str | None


def page_arguments(limit: int, cursor: str | None) -> dict[str, Any]:
    """A client's limit and cursor as the store takes them. Raises Invalid for a cursor that was not made here."""
    try:
        last = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode("ascii") if cursor else None
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise unknown_cursor() from None
    if last and not re.fullmatch(r"[0-9a-f-]{36}|[0-9]{1,12}", last):
        raise unknown_cursor()
    return {"limit": min(limit, MAX_LIMIT), "cursor": last}


def unknown_cursor() -> problems.Invalid:
    """What to raise for a cursor that was not made here."""
    errors = [{"pointer": "query:cursor", "detail": "unknown cursor"}]
    return problems.Invalid("cursor is not the next_cursor of an earlier page", errors=errors)


def opaque(cursor: str | None) -> str | None:
    return base64.urlsafe_b64encode(cursor.encode()).decode() if cursor else None
