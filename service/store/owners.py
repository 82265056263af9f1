"""Whose rows a session sees.

A session of `Database.of(owner)` sees the rows of one owner. This holds for every query of the session, whoever writes it:
the condition is added to each statement before it runs. Rows that the session adds get the owner. A session of a `Database`
without an owner (the workers, the sweeps, the cleanup) sees all rows.

A query with the option SHARED also finds what other owners share with the owner, and a query with EVERYBODY all rows. An UPDATE
or a DELETE of a session of an owner never reaches another owner's row by these options.

The owner "" is that of the service itself: of a service without keys, of the keys in `NERN_API_KEYS`, and of all rows of
releases that knew no owners. It sees its own rows, like any other owner.
"""

import re
from typing import Any

from sqlalchemy import ColumnElement, Select, event, or_, select
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from service.store.shares import EVERYONE
from service.store.tables import Owned, Share

# A name of an owner: letters, digits and hyphens, as in a DNS label.
NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")

_INFO = "nern.owner"

# Options of a query: session.scalar(query, execution_options=SHARED).
SHARED = {"nern_rows": "shared"}
EVERYBODY = {"nern_rows": "everybody"}


class OwnersSession(Session):
    """A session that sees the rows of one owner, or all rows if the owner is None."""

    def __init__(self, bind: Any, owner: str | None) -> None:
        super().__init__(bind, expire_on_commit=False, info={_INFO: owner})


def shared_with(session: Session, query: Select[Any], table: Any) -> Select[Any]:
    """The query, for the rows that other owners share with the owner of the session, in place of the owner's own."""
    shared = select(Share.object_id).where(Share.reader.in_((owner_of(session), EVERYONE)))
    return query.where(table.owner != owner_of(session), table.id.in_(shared)).execution_options(**EVERYBODY)


def owner_of(session: Session) -> str | None:
    """The owner whose rows a session sees, or None if it sees all rows."""
    owner: str | None = session.info.get(_INFO)
    return owner


@event.listens_for(OwnersSession, "do_orm_execute")
def _restrict(state: ORMExecuteState) -> None:
    owner = owner_of(state.session)
    if owner is None or not (state.is_select or state.is_update or state.is_delete):
        return
    rows = state.execution_options.get("nern_rows") if state.is_select else None
    if rows == "everybody":
        return

    # One condition for each table, and no lambda for all: SQLAlchemy would keep what a lambda returned for another owner.
    conditions = {table: _condition(table, owner, shared=rows == "shared") for table in Owned.__subclasses__()}
    options = [with_loader_criteria(table, condition, include_aliases=True) for table, condition in conditions.items()]
    state.statement = state.statement.options(*options)


def _condition(table: Any, owner: str, *, shared: bool) -> ColumnElement[bool]:
    """The condition on a row of a table: that the owner has it, or if `shared`, that the owner may read it."""
    own: ColumnElement[bool] = table.owner == owner
    if not shared:
        return own
    readable = select(Share.object_id).where(Share.object_id == table.id, Share.reader.in_((owner, EVERYONE)))
    return or_(own, readable.exists())


@event.listens_for(OwnersSession, "before_flush")
def _mark(session: Session, *_: Any) -> None:
    if (owner := owner_of(session)) is None:
        return
    for row in session.new:
        if isinstance(row, Owned):
            row.owner = owner
    for row in (*session.dirty, *session.deleted):
        assert not isinstance(row, Owned) or row.owner == owner, "a row of another owner was changed"
