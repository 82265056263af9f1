"""Alembic writes a migration for what the tables have and the database has not: the command that CONTRIBUTING.md names."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Column, String, Table, inspect

from service.store.database import Database
from service.store.tables import Base, UtcDateTime

ROOT = Path(__file__).parents[3]


@pytest.fixture
def new_table() -> Iterator[Table]:
    """A table that no migration makes."""
    table = Table("new", Base.metadata, Column("id", String(36), primary_key=True), Column("created_at", UtcDateTime))
    yield table
    Base.metadata.remove(table)


@pytest.mark.usefixtures("new_table")
def test_alembic_writes_a_migration_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_DATA_DIR", str(tmp_path))
    config = Config(toml_file=ROOT / "pyproject.toml")
    assert config.get_alembic_option("script_location") == str(ROOT / "migrations")
    # The new file goes into a copy.
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    config.set_main_option("script_location", str(tmp_path / "migrations"))
    command.upgrade(config, "head")
    command.revision(config, "a new table", autogenerate=True, rev_id="9999")
    command.upgrade(config, "head")
    database = Database(f"sqlite:///{tmp_path / 'nern.sqlite3'}")
    assert {column["name"] for column in inspect(database.engine).get_columns("new")} == {"id", "created_at"}
    database.close()
