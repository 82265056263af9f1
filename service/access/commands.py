"""The command `nern keys`, for an operator who can reach the database."""

import json
import sys
from argparse import Namespace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from service.access.issuing import issue, revoke, rotate
from service.store import keys
from service.store.database import now
from service.store.owners import NAME
from service.store.tables import ApiKey

SHOWN = ("id", "owner", "scope", "name", "start", "created_at", "expires_at", "last_used_at", "revoked_at")


def run(session: Session, options: Namespace) -> None:
    """Runs `nern keys create`, `list`, `rotate` or `revoke`. Raises ValueError for an impossible request."""
    if options.action == "list":
        _show([_plain(row) for row in keys.of_owner(session, options.owner)], options)
    elif options.action == "create":
        if options.owner and not NAME.match(options.owner):
            raise ValueError(f"{options.owner!r} is no name of an owner: up to 63 small letters, digits and hyphens")
        expires_at = now(session) + timedelta(days=options.days) if options.days else None
        _announce(
            *issue(session, owner=options.owner or "", scope=options.scope, name=options.name, expires_at=expires_at), options
        )
    else:
        if (row := keys.get(session, options.id, owner=None)) is None:
            raise ValueError(f"there is no key {options.id}")
        if options.action == "rotate":
            _announce(*rotate(session, row, overlap=timedelta(hours=options.overlap_hours)), options)
        else:
            revoke(session, row)
            _show([_plain(row)], options)


def _announce(row: ApiKey, key: str, options: Namespace) -> None:
    """Prints a new key. Without --json, the key alone goes to standard output."""
    if options.json:
        print(json.dumps({**_plain(row), "key": key}))
        return
    whose = f"the owner {row.owner}" if row.owner else "the service itself"
    print(f"key {row.id} of {whose}, scope {row.scope}; the key itself is shown this once:", file=sys.stderr)
    print(key)


def _show(rows: list[dict[str, Any]], options: Namespace) -> None:
    if options.json:
        print(json.dumps(rows))
        return
    cells = [[name.removesuffix("_at") for name in SHOWN], *([_text(row[name]) for name in SHOWN] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _plain(row: ApiKey) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in SHOWN}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def _text(value: str | None) -> str:
    """A cell: of a time, the minutes will do."""
    if value is None:
        return "-"
    return value[:16] if value[10:11] == "T" and value[4:5] == "-" else value
