"""Alembic runs this module to migrate the database of a connection that the caller hands over, or else that of the settings."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from service.settings import Settings
from service.store.database import Database
from service.store.tables import Base, UtcDateTime


def migrate(connection: Connection) -> None:
    """Runs the migrations on a connection."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, render_item=render)
    with context.begin_transaction():
        context.run_migrations()


def render(kind: str, item: Any, about: AutogenContext) -> str | Literal[False]:
    """How a new migration writes a type of this project; False for all other items, which Alembic knows how to write."""
    if kind == "type" and isinstance(item, UtcDateTime):
        about.imports.add("from service.store.tables import UtcDateTime")
        return "UtcDateTime()"
    return False


if (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    database = Database(Settings().database)
    with database.migrating() as connection:
        migrate(connection)
    database.close()
