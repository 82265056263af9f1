from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from unittest.mock import patch

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

import migrations
from service import cli
from service.settings import Settings
from service.store import checkpoints, migrate, predictors
from service.store.database import Database
from service.store.migrate import SchemaOutdated
from service.store.tables import Base
from tests.support import rows
from tests.support.networks import resnet8
from tests.support.rows import NOW
from tests.support.stored import store_predictor


def test_migrations_make_the_tables_that_the_models_describe(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_database_without_migrations_is_reported(empty_database: Database) -> None:
    with pytest.raises(SchemaOutdated, match="nern migrate"):
        migrate.probe(empty_database)
    migrate.upgrade(empty_database)
    migrate.upgrade(empty_database)
    migrate.probe(empty_database)


def test_times_come_back_in_utc_and_sizes_may_exceed_32_bits(database: Database) -> None:
    row = rows.checkpoint(created_at=datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    with database.write() as session:
        session.add(row)
    with database.read() as session:
        found = checkpoints.get(session, row.id)
    assert found is not None
    assert found.created_at == datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert found.size == 5_000_000_000


def test_pages_are_newest_first_and_complete(database: Database) -> None:
    made = [rows.checkpoint() for _ in range(5)]
    for number, row in enumerate(made):
        row.id = f"00000000-0000-7000-8000-{number:012}"
    with database.write() as session:
        session.add_all(made)
    found, cursor = [], None
    with database.read() as session:
        while True:
            page = checkpoints.page(session, limit=2, cursor=cursor)
            found += [row.id for row in page.items]
            if (cursor := page.next_cursor) is None:
                break
    assert found == [row.id for row in reversed(made)]


def test_a_deleted_checkpoint_is_gone_and_its_bytes_may_be_uploaded_again(database: Database) -> None:
    row = rows.checkpoint(sha256="0" * 64)
    with database.write() as session:
        session.add(row)
    with database.write() as session:
        checkpoints.delete(session, row, NOW)
    with database.write() as session:
        assert checkpoints.get(session, row.id) is None
        assert checkpoints.with_hash(session, "0" * 64, None) is None
        session.add(rows.checkpoint(sha256="0" * 64))


@pytest.mark.parametrize("size", [0, 1, predictors.CHUNK_BYTES, predictors.CHUNK_BYTES + 1, 3 * predictors.CHUNK_BYTES - 1])
def test_any_range_of_an_artefact_can_be_read(database: Database, size: int) -> None:
    content = bytes(index * 31 % 251 for index in range(size))
    network = rows.checkpoint()
    job = rows.job(network.id, state="running", attempt=1, fence=1)
    predictor = rows.predictor(job, size=size)
    with database.write() as session:
        session.add(network)
        session.flush()
        session.add(job)
        session.flush()
        predictors.add(session, predictor, (content[start : start + 300_000] for start in range(0, size, 300_000)))
    edges = sorted({0, 1, size // 2, predictors.CHUNK_BYTES - 1, predictors.CHUNK_BYTES, predictors.CHUNK_BYTES + 1, size})
    with database.read() as session:
        for start in edges:
            for stop in edges:
                assert predictors.read(session, predictor.id, start, stop) == content[start:stop]


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    row = rows.checkpoint()

    def fail() -> None:
        with database.write() as session:
            session.add(row)
            session.flush()
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with database.read() as session:
        assert checkpoints.get(session, row.id) is None


def test_a_folder_with_a_space_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    database = Database(f"sqlite:///{folder / 'x.sqlite3'}")
    migrate.upgrade(database)
    database.close()


def test_migrations_run_from_the_command_of_alembic_and_can_be_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_DATA_DIR", str(tmp_path))
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    database = Database(Settings().database)
    command.upgrade(config, "head")
    migrate.probe(database)
    # The migrations change tables whose rows refer to each other.
    store_predictor(database, resnet8())
    command.downgrade(config, "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    database.close()


def test_the_command_brings_a_database_to_the_schema_of_this_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_DATA_DIR", str(tmp_path))
    with patch("service.commands.configure"):
        cli.main(["migrate"])
    database = Database(Settings().database)
    migrate.probe(database)
    database.close()
