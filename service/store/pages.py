"""Pages of rows, from the newest row to the oldest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Rows of one page. `next_cursor` is the id of the last row if there are more rows, else None."""

    items: Sequence[Row]
    next_cursor: str | None


def newest_first(
    session: Session, query: Select[Any], id: InstrumentedAttribute[str], *, limit: int, cursor: str | None
) -> Page[Any]:
    """At most `limit` rows of the query `query` with ids less than `cursor`, in descending order of the column `id`.

    Ids sort by the time of their creation. Therefore, the last id of a page is the cursor of the next page.
    """
    if cursor:
        query = query.where(id < cursor)
    rows = session.scalars(query.order_by(id.desc()).limit(limit + 1)).all()
    more = len(rows) > limit
    return Page(rows[:limit], rows[limit - 1].id if more else None)
