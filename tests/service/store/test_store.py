from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from service.store import checkpoints, ids, migrate, predictors
from service.store.database import Database
from service.store.migrate import SchemaOutdated
from service.store.tables import Base, Checkpoint, Job, Predictor

NOW = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))


def checkpoint(**values: object) -> Checkpoint:
    made = {
        "id": ids.new_id(), "sha256": ids.new_id(), "filename": "a", "size": 5_000_000_000, "format": "safetensors",
        "architecture": None, "candidates": [], "layers": [], "kept": [], "weights": 1, "parameters": 1, "created_at": NOW,
    }  # fmt: skip
    return Checkpoint(**{**made, **values})


def test_migrations_make_the_tables_that_the_models_describe(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_database_without_migrations_is_reported(empty_database: Database) -> None:
    with pytest.raises(SchemaOutdated, match="nern migrate"):
        migrate.check(empty_database)
    migrate.upgrade(empty_database)
    migrate.upgrade(empty_database)
    migrate.check(empty_database)


def test_times_come_back_in_utc_and_sizes_may_exceed_32_bits(database: Database) -> None:
    row = checkpoint()
    with database.write() as session:
        session.add(row)
    with database.read() as session:
        found = checkpoints.get(session, row.id)
    assert found is not None
    assert found.created_at == datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert found.size == 5_000_000_000


def test_pages_are_newest_first_and_complete(database: Database) -> None:
    rows = [checkpoint() for _ in range(5)]
    for number, row in enumerate(rows):
        row.id = f"00000000-0000-7000-8000-{number:012}"
    with database.write() as session:
        session.add_all(rows)
    found, cursor = [], None
    with database.read() as session:
        while True:
            page = checkpoints.page(session, limit=2, cursor=cursor)
            found += [row.id for row in page.items]
            if (cursor := page.next_cursor) is None:
                break
    assert found == [row.id for row in reversed(rows)]


def test_a_deleted_checkpoint_is_gone_and_its_bytes_may_be_uploaded_again(database: Database) -> None:
    row = checkpoint(sha256="0" * 64)
    with database.write() as session:
        session.add(row)
    with database.write() as session:
        checkpoints.delete(session, row, NOW)
    with database.write() as session:
        assert checkpoints.get(session, row.id) is None
        assert checkpoints.with_hash(session, "0" * 64) is None
        session.add(checkpoint(sha256="0" * 64))


@pytest.mark.parametrize("size", [0, 1, predictors.CHUNK, predictors.CHUNK + 1, 3 * predictors.CHUNK - 1])
def test_any_range_of_an_artefact_can_be_read(database: Database, size: int) -> None:
    content = bytes(index * 31 % 251 for index in range(size))
    network = checkpoint()
    job = Job(
        id=ids.new_id(), state="running", checkpoint_id=network.id, config={}, notes=[], created_at=NOW,
        attempt=1, fence=1, cancel_requested=False,
    )  # fmt: skip
    predictor = Predictor(
        id=ids.new_id(), job_id=job.id, checkpoint_id=network.id, architecture=None, config={}, layers=[], report={},
        size=size, sha256="", created_at=NOW,
    )  # fmt: skip
    with database.write() as session:
        session.add(network)
        session.flush()
        session.add(job)
        session.flush()
        predictors.add(session, predictor, (content[start : start + 300_000] for start in range(0, size, 300_000)))
    edges = sorted({0, 1, size // 2, predictors.CHUNK - 1, predictors.CHUNK, predictors.CHUNK + 1, size})
    with database.read() as session:
        for start in edges:
            for stop in edges:
                assert predictors.read(session, predictor.id, start, stop) == content[start:stop]


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    row = checkpoint()

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
