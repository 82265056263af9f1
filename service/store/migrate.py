"""Migrations: `upgrade` brings a database to the schema of this release, `probe` tells whether this release works with it.

While a release takes the place of another, processes of both use one database. So a migration only adds, and takes away in a
later release what no process uses any more ("expand, then contract"). A migration that takes away writes into the column
`oldest` of the table `installation` which release still works with the tables: the migration that was that release's last.
An older process reads this, because it can't know later migrations.
"""

import logging
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select, text

import migrations
from service.store.database import Database
from service.store.tables import Installation

log = logging.getLogger(__name__)


class Incompatible(Exception):
    """This release does not work with the schema of the database."""


class SchemaOutdated(Incompatible):
    """Migrations of this release have not run yet. `nern migrate` runs them."""


class ReleaseOutdated(Incompatible):
    """A later release has taken away what this release needs."""


def upgrade(database: Database) -> None:
    """Runs all migrations that have not run yet. Does nothing to a database that a later release has migrated.

    Raises ReleaseOutdated if this release does not work with what a later one has made, and what `Database.migrating` raises.
    """
    with database.migrating() as connection:
        current = _current(connection)
        if current is None or current in _known():
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            log.info("the database is at migration %s (before: %s)", _known()[0], current or "none")
        else:
            _validate_later(connection, current)
            log.info("a later release has migrated the database, to %s; this release works with it", current)


def probe(database: Database) -> None:
    """Raises Incompatible if this release does not work with the schema of the database, and Away."""
    with database.read() as session:
        connection = session.connection()
        current, known = _current(connection), _known()
        if current is None or current in known[1:]:
            raise SchemaOutdated(
                f"the database is at migration {current}, but this release needs {known[0]}; run `nern migrate`"
            )
        if current != known[0]:
            _validate_later(connection, current)


def _validate_later(connection: Connection, current: str) -> None:
    """Raises ReleaseOutdated if a later release has taken away what this release needs."""
    oldest = connection.scalar(select(Installation.oldest))
    if oldest is not None and oldest not in _known():
        raise ReleaseOutdated(
            f"the database is at migration {current}, which works with releases from migration {oldest} on; this release is "
            f"older ({_known()[0]})"
        )


def _current(connection: Connection) -> str | None:
    """The last migration that has run; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


@cache
def _known() -> tuple[str, ...]:
    """The migrations of this release, from the last to the first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
