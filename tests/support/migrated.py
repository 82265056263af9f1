"""Databases that have been migrated already. A migration takes ten times as long as a copy."""

import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
from sqlalchemy import update

from service.store import migrate
from service.store.database import Database
from service.store.tables import Installation


@cache
def _content() -> bytes:
    """The file of a migrated SQLite database."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "template.sqlite3"
        database = Database(f"sqlite:///{file}")
        migrate.upgrade(database)
        database.close()
        return file.read_bytes()


def sqlite(url: str) -> Database:
    """A migrated SQLite database at this URL, which has an id of its own."""
    Path(url.removeprefix("sqlite:///")).write_bytes(_content())
    return _with_own_id(Database(url))


def postgresql(server: str, name: str) -> Database:
    """A migrated database of this name on a PostgreSQL server. The URL is that of another database of the server."""
    with psycopg.connect(server, autocommit=True) as connection:
        # Several processes of pytest may use one server, and a template must have no connections.
        template = f"template_{os.getpid()}"
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [template]).fetchone():
            connection.execute(f"CREATE DATABASE {template}".encode())
            database = Database(url_of(server, template))
            migrate.upgrade(database)
            database.close()
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return _with_own_id(Database(url_of(server, name)))


def url_of(server: str, name: str) -> str:
    """The URL of the database of a name, on the server of another URL."""
    start, question, options = server.partition("?")
    return f"{start.rpartition('/')[0]}/{name}{question}{options}"


def _with_own_id(database: Database) -> Database:
    with database.write() as session:
        session.execute(update(Installation).values(id=str(uuid4())))
    return database
