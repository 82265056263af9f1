"""Alembic writes a migration for what the tables have and the database has not: the command that CONTRIBUTING.md names."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, String, Table, inspect

from service import cli
from service.store import migrate
from service.store.database import BrokenReferences, Database
from service.store.tables import Base, UtcDateTime
from tests.support.networks import resnet8
from tests.support.stored import store_predictor

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


def test_a_migration_may_change_a_table_that_others_refer_to(database: Database) -> None:
    store_predictor(database, resnet8())
    with (
        database.migrating() as connection,
        Operations(MigrationContext.configure(connection)).batch_alter_table("checkpoint") as table,
    ):
        table.drop_column("candidates")
    assert "candidates" not in {column["name"] for column in inspect(database.engine).get_columns("checkpoint")}
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM checkpoint").scalar() == 1
        assert connection.exec_driver_sql("SELECT count(*) FROM job").scalar() == 1


def test_a_migration_that_breaks_references_changes_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.sqlite3'}")
    migrate.upgrade(database)
    store_predictor(database, resnet8())
    with pytest.raises(BrokenReferences, match="refers to a row of checkpoint"), database.migrating() as connection:
        connection.exec_driver_sql("DELETE FROM checkpoint")
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM checkpoint").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()


def test_the_first_command_may_be_a_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_DATA_DIR", str(tmp_path / "new" / "data"))
    monkeypatch.setattr("service.commands.configure", lambda: None)
    cli.main(["migrate"])
    assert (tmp_path / "new" / "data" / "nern.sqlite3").exists()
