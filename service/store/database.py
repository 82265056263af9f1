"""Connections to the database, and transactions."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, ExceptionContext, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError
from sqlalchemy.orm import Session

from service.clock import utc_now
from service.metrics.counted import DATABASE_ERRORS
from service.store.owners import OwnersSession

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


# The number of the lock of PostgreSQL that a migration holds. Any number will do that nothing else in the database uses.
MIGRATION_LOCK = 0x6E65726E

# How long a migration waits for a table of PostgreSQL that a transaction uses. Meanwhile, later transactions wait for the
# migration.
LOCK_TIMEOUT = "5s"

# Codes (SQLSTATE) of PostgreSQL: a write on a standby; a table or a column that does not exist.
READ_ONLY = "25006"
NO_TABLE_OR_COLUMN = ("42P01", "42703")


class Away(Exception):
    """The database does not answer, or takes no writes for now. A later attempt may succeed."""


class WrongSchema(Away):
    """The database does not have the tables of this release, perhaps because a migration has not run yet."""


class BrokenReferences(Exception):
    """A row refers to a row that does not exist."""


class Database:
    """One database, by its SQLAlchemy URL.

    `read` and `write` are context managers. Each opens a session with one transaction. `write` commits the transaction when its
    block ends without an exception. Both raise Away. The sessions see all rows, or those of one owner; see `of`.
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
            # Messages of exceptions reach the log, and parameters may be secrets of webhooks.
            hide_parameters=True,
            connect_args={name: value for name, value in timeouts.items() if name not in parsed.query},
        )
        event.listen(self.engine, "handle_error", _leave_standby)
        if parsed.get_backend_name() == "sqlite":
            event.listen(self.engine, "connect", _set_up_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._writing = self.engine.execution_options(nern_write=True)
        self._owner: str | None = None

    def of(self, owner: str) -> "Database":
        """The same database, as an owner sees it. See `service.store.owners`."""
        bound = copy.copy(self)
        bound._owner = owner
        return bound

    @property
    def libpq_url(self) -> str | None:
        """The URL of a PostgreSQL database for libpq, with its password; None for SQLite."""
        if self.engine.dialect.name != "postgresql":
            return None
        return self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)

    @contextmanager
    def read(self) -> Iterator[Session]:
        with self._reached(), OwnersSession(self.engine, self._owner) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        with self._reached(), OwnersSession(self._writing, self._owner) as session, session.begin():
            yield session

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:  # all connections are in use
            DATABASE_ERRORS.labels("exhausted").inc()
            raise Away(str(error)) from error
        except DBAPIError as error:
            code, message = getattr(error.orig, "sqlstate", None), str(error.orig)
            if code in NO_TABLE_OR_COLUMN or message.startswith(("no such table", "no such column")):
                DATABASE_ERRORS.labels("schema").inc()
                raise WrongSchema(message) from error
            if code != READ_ONLY and not isinstance(error, OperationalError | InterfaceError):
                raise
            DATABASE_ERRORS.labels("away").inc()
            raise Away(message) from error

    def probe(self) -> None:
        """Raises an exception unless the database answers and takes writes."""
        with self.read() as session:
            if session.get_bind().dialect.name == "postgresql":
                if session.scalar(text("SHOW transaction_read_only")) != "off":
                    session.invalidate()
                    raise Away("the database takes no writes")
            else:
                session.execute(text("SELECT 1"))

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """A connection in a transaction, for migrations. Only one process is in such a block at a time; others wait.

        SQLite changes a table by a copy of the table, which is impossible while foreign keys are enforced. So foreign keys are
        checked when the block ends. Raises BrokenReferences if a row refers to nothing, and OperationalError if a transaction
        keeps a table of PostgreSQL for longer than LOCK_TIMEOUT; nothing is committed then.
        """
        with self._writing.connect() as connection:
            sqlite = connection.dialect.name == "sqlite"
            if sqlite:
                _execute_outside_transaction(connection, "PRAGMA foreign_keys=OFF")
            try:
                with connection.begin():
                    if not sqlite:
                        connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
                        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
                    yield connection
                    if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
                        table, row, parent, _ = broken
                        raise BrokenReferences(f"row {row} of table {table} refers to a row of {parent} that does not exist")
            finally:
                if sqlite:
                    _execute_outside_transaction(connection, "PRAGMA foreign_keys=ON")

    def close(self) -> None:
        self.engine.dispose()


def now(session: Session) -> datetime:
    """The time by the clock of the database, so that the clocks of other machines need not agree.

    An SQLite database is used by the processes of one machine, and has the clock of this machine.
    """
    if session.get_bind().dialect.name != "postgresql":
        return utc_now()
    time: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return time.astimezone(UTC)


def _execute_outside_transaction(connection: Connection, statement: str) -> None:
    """Runs a statement that has no effect in a transaction, which SQLAlchemy would begin."""
    driver: Any = connection.connection.driver_connection
    driver.execute(statement)


def _leave_standby(context: ExceptionContext) -> None:
    """Drops the connections to a server that has become a standby. New connections lead to the new primary."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


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
