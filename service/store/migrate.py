"""Migrations: `upgrade` brings a database to the schema of this release, `probe` tells whether it has that schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, select

import migrations
from service.store.database import Database

# The number of the lock that a migration holds. Any number will do that nothing else in the database uses.
LOCK = 0x6E65726E


class SchemaOutdated(Exception):
    """The schema of the database is not the schema of this release. `nern migrate` upgrades an older one."""


def upgrade(database: Database) -> None:
    """Runs all migrations that have not run yet. Raises BrokenReferences if a migration leaves rows that refer to nothing."""
    with database.without_foreign_keys() as connection:
        if connection.dialect.name == "postgresql":
            # Two processes that start at the same time migrate one after the other. SQLite locks the whole database.
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def probe(database: Database) -> None:
    """Raises SchemaOutdated unless all migrations of this release have run and no later ones."""
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if current != head:
        raise SchemaOutdated(f"the database is at migration {current}, but this release needs {head}; run `nern migrate`")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
