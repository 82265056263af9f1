"""Alembic runs this module to migrate the database of a connection that the caller hands over, or else that of the settings."""

from alembic import context
from sqlalchemy import Connection

from service.settings import Settings
from service.store.database import Database
from service.store.tables import Base


def migrate(connection: Connection) -> None:
    """Runs the migrations on a connection."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    database = Database(Settings().database)
    with database.engine.begin() as connection:
        migrate(connection)
    database.close()
