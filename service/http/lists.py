"""Lists as clients see them: pages of limited length, linked by opaque cursors."""

import base64
import re
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from service import problems

MAX_PAGE_ITEMS = 200

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, description=f"Items on a page. More than {MAX_PAGE_ITEMS} count as {MAX_PAGE_ITEMS}")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the previous page. Default: the first page")]

Shared = Annotated[bool, Query(description="List what other owners share with the owner of the key, in place of its own")]


class ListOf(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next_cursor: str | None = Field(description="Value of `cursor` for the next page; null on the last page")


ROW_ID = r"[0-9a-f-]{36}"
EVENT_NUMBER = r"[0-9]{1,12}"


def page_arguments(limit: int, cursor: str | None, *, kind: str = ROW_ID) -> dict[str, Any]:
    """The keyword arguments `limit` and `cursor` for queries of the store.

    Raises Invalid unless the cursor holds the `kind` of value that the list is ordered by, a regular expression.
    """
    try:
        last = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode("ascii") if cursor else None
    except ValueError:
        raise _unknown_cursor() from None
    if last and not re.fullmatch(kind, last):
        raise _unknown_cursor()
    return {"limit": min(limit, MAX_PAGE_ITEMS), "cursor": last}


def _unknown_cursor() -> problems.Invalid:
    """The problem of a cursor that is not one of this service's."""
    errors = [{"pointer": "query:cursor", "detail": "unknown cursor"}]
    return problems.Invalid("the cursor is not the next_cursor of another page of this list", errors=errors)


def opaque(cursor: str | None) -> str | None:
    """A cursor of the store as clients see it: in base64, so that clients do not rely on its content."""
    return base64.urlsafe_b64encode(cursor.encode()).decode() if cursor else None
