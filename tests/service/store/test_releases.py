"""From release to release: migrations lose nothing, and what an older release needs stays until a later one."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Column, ForeignKey, Index, MetaData, String, Table, UniqueConstraint, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

import migrations
from service import cli
from service.store import database as store_database
from service.store import migrate
from service.store.database import Database
from service.store.migrate import ReleaseOutdated, SchemaOutdated
from service.store.tables import Base, Installation
from tests.support import rows
from tests.support.filled import Content, content, fill, schema

SCRIPTS = Path(migrations.__file__).parent

# What each upgrade loses: columns that no release after it reads.
LOST_BY_UPGRADE = {"0007": {"job.woken_at"}}

# What each downgrade must lose: what the release before has no place for.
LOST_BY_DOWNGRADE = {
    "0001": {"checkpoint", "dataset", "job", "job_event", "predictor", "predictor_chunk"},
    "0002": {"checkpoint.key", "checkpoint.first", "checkpoint.choice"},
    "0003": {"dataset.kind", "dataset.inputs", "dataset.labels", "dataset.class_names", "dataset.notes"},
    "0004": {"upload", "upload_part"},
    "0005": {"graph", "checkpoint.ports", "job.network"},
    "0006": {"job.pause_requested"},
    "0007": {"job_snapshot"}
    | {f"job.{name}" for name in ("fruitless", "faults", "not_before", "priority", "owner", "claimed_at")},
    "0008": {"worker", "job.worker"},
    "0009": {"delivery", "job.webhook"},
    "0010": {"installation"},
    "0011": {"api_key", "share"} | {f"{name}.owner" for name in ("checkpoint", "dataset", "predictor", "upload")},
    "0012": {"job.request_id", "job.traceparent"},
    "0013": {"installation.oldest"},
}

# What the code of the release before misses after a migration. The only release before these was 0.1.0, which did not expect
# to run beside another one. Since migration 0013, such a migration tells older releases to stop; see `installation.oldest`.
TAKEN_AWAY = {"0007": {"job.woken_at is gone"}, "0011": {"job.owner is narrower"}}


def config(scripts: Path = SCRIPTS) -> Config:
    made = Config()
    made.set_main_option("script_location", str(scripts))
    return made


def revisions() -> list[str]:
    """The migrations of this release, from the first to the last."""
    return [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()][::-1]


def run(database: Database, action: str, revision: str, scripts: Path = SCRIPTS) -> None:
    """Upgrades or downgrades a database to a migration."""
    with database.migrating() as connection:
        of_this_connection = config(scripts)
        of_this_connection.attributes["connection"] = connection
        getattr(command, action)(of_this_connection, revision)


def content_of(database: Database) -> Content:
    with database.engine.connect() as connection:
        return content(connection)


def lost(before: Content, after: Content) -> set[str]:
    """Tables and columns that are gone, or in which a value or a row is. Null is no value."""
    found = set()
    for table, rows_before in before.items():
        if table not in after or rows_before.keys() != after[table].keys():
            found.add(table)
            continue
        for key, row in rows_before.items():
            now = after[table][key]
            found |= {f"{table}.{name}" for name, value in row.items() if value is not None and now.get(name) != value}
    return found


def test_upgrades_and_downgrades_lose_nothing_but_what_has_no_place(empty_database: Database) -> None:
    database, steps = empty_database, revisions()
    for number, revision in enumerate(steps):
        before = content_of(database) if number else {}
        run(database, "upgrade", revision)
        assert lost(before, content_of(database)) == LOST_BY_UPGRADE.get(revision, set()), revision
        if revision != steps[-1]:
            with pytest.raises(SchemaOutdated, match=f"at migration {revision}, .* run `nern migrate`"):
                migrate.probe(database)
        with database.engine.begin() as connection:
            fill(connection, number)
    with database.write() as session:
        # Inputs have none of what only images have.
        session.add(rows.dataset(kind="inputs", **dict.fromkeys(("images", "height", "width", "mean", "std")), channels=None))
    full = content_of(database)
    assert full.keys() == Base.metadata.tables.keys()
    assert all(full.values())
    for revision, target in zip(steps[::-1], [*steps[-2::-1], "base"], strict=True):
        before = content_of(database)
        run(database, "downgrade", target)
        assert lost(before, content_of(database)) == LOST_BY_DOWNGRADE[revision], revision
        if target == steps[0]:
            # What the first release has is there, and comes back.
            run(database, "upgrade", "head")
            migrate.probe(database)
            assert {name: len(table) for name, table in content_of(database).items() if name in before} == {
                name: len(table) for name, table in before.items()
            }
            run(database, "downgrade", target)
    assert content_of(database) == {}


def test_a_downgrade_that_would_lose_rows_changes_nothing(database: Database) -> None:
    """Release 0.1.0 has one checkpoint of the same bytes. Two owners may have one each."""
    with database.write() as session:
        session.add_all(rows.checkpoint(sha256="0" * 64, owner=owner) for owner in ("red", "blue"))
    before = content_of(database)
    with pytest.raises(IntegrityError):
        run(database, "downgrade", "0010")
    assert content_of(database) == before
    migrate.probe(database)


def test_migrations_take_nothing_away_that_the_release_before_needs(postgres_url: str) -> None:
    database, oldest = Database(postgres_url), None
    for number, revision in enumerate(revisions()):
        with database.engine.connect() as connection:
            before = schema(connection) if number else MetaData()
        run(database, "upgrade", revision)
        with database.engine.connect() as connection:
            after = schema(connection)
            told = connection.scalar(select(Installation.oldest)) if revision >= "0013" else None
        found = set(taken_away(before, after))
        if revision < "0013":
            assert found == TAKEN_AWAY.get(revision, set()), revision
        else:
            assert bool(found) == (told != oldest), f"{revision}: {found or 'nothing is taken away'}, oldest is {told}"
            assert told is None or told in revisions()[:number], f"{revision}: the release before must still work"
            oldest = told
    database.close()


def taken_away(before: MetaData, after: MetaData) -> Iterator[str]:
    """What code that was written for a schema misses in a later one, or what such code writes that the later one refuses."""
    for name, old in before.tables.items():
        if name not in after.tables:
            yield f"{name} is gone"
            continue
        new = after.tables[name]
        for column in old.columns:
            if column.name not in new.columns:
                yield f"{name}.{column.name} is gone"
            else:
                yield from (f"{name}.{column.name} {what}" for what in _stricter(column, new.columns[column.name]))
        for column in new.columns:
            if column.name not in old.columns and not column.nullable and column.server_default is None:
                yield f"{name}.{column.name} needs a value"
        for unique in _unique(new):
            if not any(known <= unique for known in _unique(old)):
                yield f"{name}: {', '.join(sorted(unique))} must be unique"


def _stricter(old: Column[object], new: Column[object]) -> Iterator[str]:
    if isinstance(old.type, String) and isinstance(new.type, String):
        if new.type.length is not None and (old.type.length is None or new.type.length < old.type.length):
            yield "is narrower"
    elif str(old.type) != str(new.type):
        yield "has another type"
    if old.nullable and not new.nullable:
        yield "must not be null"
    if old.server_default is not None and new.server_default is None and not new.nullable:
        yield "has no default any more"
    if {key.target_fullname for key in new.foreign_keys} - {key.target_fullname for key in old.foreign_keys}:
        yield "must refer to a row"


def _unique(table: Table) -> set[frozenset[str]]:
    """Sets of columns of which no two rows may have the same values."""
    constraints = [constraint for constraint in table.constraints if isinstance(constraint, UniqueConstraint)]
    found: list[UniqueConstraint | Index] = [*constraints, *(index for index in table.indexes if index.unique)]
    return {frozenset(column.name for column in one.columns) for one in found}


def made(*columns: Column[object] | Index, others: Sequence[str] = ()) -> MetaData:
    found = MetaData()
    Table("parent", found, Column("id", String(36), primary_key=True))
    Table("job", found, Column("id", String(36), primary_key=True), *columns)
    for name in others:
        Table(name, found, Column("id", String(36), primary_key=True))
    return found


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (made(), made(Column("a", String)), []),
        (made(), made(Column("a", String, nullable=False, server_default="")), []),
        (made(), made(others=["new"]), []),
        (made(Column("a", String(16))), made(Column("a", String(32))), []),
        (made(Column("a", String), Index("x", "a", unique=True)), made(Column("a", String)), []),
        (made(others=["old"]), made(), ["old is gone"]),
        (made(Column("a", String)), made(Column("b", String)), ["job.a is gone"]),
        (made(), made(Column("a", String, nullable=False)), ["job.a needs a value"]),
        (made(Column("a", String)), made(Column("a", String, nullable=False)), ["job.a must not be null"]),
        (made(Column("a", String)), made(Column("a", Boolean)), ["job.a has another type"]),
        (made(Column("a", String(16))), made(Column("a", String(8))), ["job.a is narrower"]),
        (
            made(Column("a", String, nullable=False, server_default="")),
            made(Column("a", String, nullable=False)),
            ["job.a has no default any more"],
        ),
        (made(Column("a", String)), made(Column("a", String), Index("x", "a", unique=True)), ["job: a must be unique"]),
        (made(Column("a", String)), made(Column("a", String, ForeignKey("parent.id"))), ["job.a must refer to a row"]),
    ],
)
def test_what_older_code_misses_is_found(before: MetaData, after: MetaData, found: list[str]) -> None:
    assert list(taken_away(before, after)) == found


EXPAND = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "9998", "{head}"
def upgrade():
    op.add_column("job", sa.Column("new", sa.String()))
    op.create_table("new", sa.Column("id", sa.String(36), primary_key=True))
"""
CONTRACT = """
from alembic import op
revision, down_revision = "9999", "9998"
def upgrade():
    with op.batch_alter_table("job") as table:
        table.drop_column("architecture")
    op.execute("UPDATE installation SET oldest = '9998'")
"""


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The migrations of this release, and of two later ones: 9998 adds, 9999 takes away."""
    folder = tmp_path / "later"
    shutil.copytree(SCRIPTS, folder)
    (folder / "versions" / "9998_expand.py").write_text(EXPAND.format(head=revisions()[-1]))
    (folder / "versions" / "9999_contract.py").write_text(CONTRACT)
    return folder


def test_a_release_works_with_a_later_schema_until_that_takes_away_what_it_needs(database: Database, later: Path) -> None:
    run(database, "upgrade", "9998", later)
    migrate.probe(database)
    before = content_of(database)
    migrate.upgrade(database)  # as when somebody goes back to this release
    assert content_of(database) == before
    run(database, "upgrade", "9999", later)
    with pytest.raises(ReleaseOutdated, match="migration 9999, which works with releases from migration 9998 on"):
        migrate.probe(database)
    with pytest.raises(ReleaseOutdated):
        migrate.upgrade(database)


def test_the_command_says_that_the_release_is_too_old(tmp_path: Path, later: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("service.commands.configure", lambda: None)
    cli.main(["migrate"])
    database = Database(f"sqlite:///{tmp_path / 'nern.sqlite3'}")
    run(database, "upgrade", "9999", later)
    database.close()
    with pytest.raises(SystemExit, match="nern migrate: the database is at migration 9999"):
        cli.main(["migrate"])


def test_replicas_stay_ready_while_a_migration_runs(database: Database, later: Path) -> None:
    replica = Database(database.engine.url.render_as_string(hide_password=False))
    with database.migrating() as connection:
        running = config(later)
        running.attributes["connection"] = connection
        command.upgrade(running, "9998")
        # Nothing of this is committed yet.
        replica.probe()
        migrate.probe(replica)
    replica.probe()
    migrate.probe(replica)
    replica.close()


def test_a_migration_does_not_wait_for_a_table_for_long(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants the table after the migration would wait too. A backup, for example, keeps tables for hours."""
    monkeypatch.setattr(store_database, "LOCK_TIMEOUT", "50ms")
    database = Database(postgres_url)
    run(database, "upgrade", revisions()[0])
    with database.engine.connect() as backup:
        backup.execute(text("SELECT * FROM checkpoint"))
        with pytest.raises(OperationalError, match="lock timeout"):
            migrate.upgrade(database)
    migrate.upgrade(database)
    database.close()
