"""Connections to the database, and transactions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.orm import Session

# How long a transaction that writes to SQLite waits for another one that writes.
BUSY_MILLISECONDS = 30_000

# Options of libpq. With these options, a connection to a silent PostgreSQL server fails after about twenty seconds. Otherwise
# the kernel would wait for hours. `tcp_user_timeout` is in milliseconds, the other times are in seconds.
POSTGRES_TIMEOUTS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}


class BrokenReferences(Exception):
    """A row refers to a row that does not exist."""


class Database:
    """One database, by its SQLAlchemy URL.

    `read` and `write` are context managers. Each opens a session with one transaction. `write` commits the transaction when its
    block ends without an exception.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        timeouts = POSTGRES_TIMEOUTS if parsed.get_backend_name() == "postgresql" else {}
        self.engine = create_engine(
            parsed,
            pool_size=10,
            max_overflow=40,
            pool_pre_ping=True,
            connect_args={name: value for name, value in timeouts.items() if name not in parsed.query},
        )
        if parsed.get_backend_name() == "sqlite":
            event.listen(self.engine, "connect", _set_up_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._writing = self.engine.execution_options(nern_write=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def without_foreign_keys(self) -> Iterator[Connection]:
        """A connection in a transaction, for migrations.

        SQLite changes a table by a copy of the table, which is impossible while foreign keys are enforced. So foreign keys are
        checked when the block ends. Raises BrokenReferences if a row refers to nothing; nothing is committed then.
        """
        with self._writing.connect() as connection:
            sqlite = connection.dialect.name == "sqlite"
            if sqlite:
                _execute_outside_transaction(connection, "PRAGMA foreign_keys=OFF")
            try:
                with connection.begin():
                    yield connection
                    if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
                        table, row, parent, _ = broken
                        raise BrokenReferences(f"row {row} of table {table} refers to a row of {parent} that does not exist")
            finally:
                if sqlite:
                    _execute_outside_transaction(connection, "PRAGMA foreign_keys=ON")

    def close(self) -> None:
        self.engine.dispose()


def _execute_outside_transaction(connection: Connection, statement: str) -> None:
    """Runs a statement that has no effect in a transaction, which SQLAlchemy would begin."""
    driver: Any = connection.connection.driver_connection
    driver.execute(statement)


def _set_up_sqlite(connection: Any, record: Any) -> None:
    # The driver would begin a transaction only before the first statement that writes, and none for reads. `_begin_sqlite`
    # begins transactions in its place.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={BUSY_MILLISECONDS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that has begun with a read can't wait for the write lock later. A transaction that will write takes the lock
    # when it begins.
    writes = connection.get_execution_options().get("nern_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
