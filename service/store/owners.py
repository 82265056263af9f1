"""Whose rows a session sees.

A session of `Database.of(owner)` sees the rows of one owner. This holds for every query of the session, whoever writes it:
the condition is added to each statement before it runs. Rows that the session adds get the owner. A session of a `Database`
without an owner (the workers, the sweeps, the cleanup) sees all rows.

The owner "" is that of the service itself: of a service without keys, of the keys in `NERN_API_KEYS`, and of all rows of
releases that knew no owners. It sees its own rows, like any other owner.
"""

import re
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from service.store.tables import Owned

# A name of an owner: letters, digits and hyphens, as in a DNS label.
NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")

_INFO = "nern.owner"


class OwnersSession(Session):
    """A session that sees the rows of one owner, or all rows if the owner is None."""

    def __init__(self, bind: Any, owner: str | None) -> None:
        super().__init__(bind, expire_on_commit=False, info={_INFO: owner})


def owner_of(session: Session) -> str | None:
    """The owner whose rows a session sees, or None if it sees all rows."""
    owner: str | None = session.info.get(_INFO)
    return owner


@event.listens_for(OwnersSession, "do_orm_execute")
def _restrict(state: ORMExecuteState) -> None:
    owner = owner_of(state.session)
    if owner is not None and (state.is_select or state.is_update or state.is_delete):
        own = with_loader_criteria(Owned, lambda table: table.owner == owner, include_aliases=True)
        state.statement = state.statement.options(own)


@event.listens_for(OwnersSession, "before_flush")
def _mark(session: Session, *_: Any) -> None:
    if (owner := owner_of(session)) is not None:
        for row in session.new:
            if isinstance(row, Owned):
                row.owner = owner
