"""Lists, newest first, a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows and, if there are more, where the next page starts."""

    items: Sequence[Row]
    next_cursor: str | None


def newest_first(
    session: Session, query: Select[Any], id: InstrumentedAttribute[str], *, limit: int, cursor: str | None
) -> Page[Any]:
    """Ids sort by time of creation, so the last id of a page is where the next one starts."""
    if cursor:
        query = query.where(id < cursor)
    rows = session.scalars(query.order_by(id.desc()).limit(limit + 1)).all()
    more = len(rows) > limit
    return Page(rows[:limit], rows[limit - 1].id if more else None)
