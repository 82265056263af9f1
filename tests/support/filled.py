"""Made-up rows in every table of a database, whatever its schema is, and what is in the tables."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    select,
)

# A table's rows by their primary keys; a row's values by the names of its columns.
Content = dict[str, dict[tuple[Any, ...], dict[str, Any]]]

# Values that migrations look at.
GIVEN = {"dataset.kind": "images"}


def schema(connection: Connection) -> MetaData:
    """The tables of the service in a database."""
    found = MetaData()
    found.reflect(connection)
    found.remove(found.tables["alembic_version"])
    return found


def fill(connection: Connection, number: int) -> None:
    """Adds a row to every table, with a value in every column. Rows of one number refer to each other."""
    for table in schema(connection).sorted_tables:
        values = {column.name: _value(table, column, number) for column in table.columns}
        connection.execute(insert(table).values(values))


def content(connection: Connection) -> Content:
    """Everything that is in the tables."""
    return {
        name: {
            tuple(row[column.name] for column in table.primary_key): dict(row)
            for row in connection.execute(select(table)).mappings()
        }
        for name, table in schema(connection).tables.items()
    }


def _value(table: Table, column: Column[Any], number: int) -> Any:
    name = f"{table.name}.{column.name}"
    if name in GIVEN:
        return GIVEN[name]
    if column.foreign_keys:
        [parent] = column.foreign_keys
        return _value(parent.column.table, parent.column, number)
    match column.type:
        case JSON():
            return {name: number}
        case Boolean():
            return number % 2 == 0
        case DateTime():
            return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
        case Integer():
            return 2**32 + number
        case LargeBinary():
            return bytes([number])
        case String():
            return f"{number} {name}"[: column.type.length]
    raise AssertionError(f"{name} has a type that this function does not know: {column.type!r}")
