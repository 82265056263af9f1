"""A database that is away, takes no writes, or has another clock than this machine."""

from datetime import UTC, datetime, timedelta
from threading import Thread
from unittest.mock import patch

import psycopg
import pytest
from sqlalchemy import text

from service.store import migrate
from service.store.database import Away, Database, WrongSchema, now
from tests.support.servers import free_port
from tests.support.waiting import DEADLINE_SECONDS


def count(database: Database) -> int:
    with database.read() as session:
        return int(session.execute(text("SELECT count(*) FROM job")).scalar_one())


def test_a_database_that_does_not_answer_is_away() -> None:
    database = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    with pytest.raises(Away), database.read() as session:
        session.execute(text("SELECT 1"))
    with pytest.raises(Away), database.write() as session:
        session.execute(text("SELECT 1"))
    with pytest.raises(Away):
        database.probe()
    database.close()


def test_a_database_that_is_restarted_is_away_for_that_time(postgres_url: str) -> None:
    database = Database(postgres_url)
    migrate.upgrade(database)

    def interrupted() -> None:
        with database.read() as session, psycopg.connect(postgres_url, autocommit=True) as other:
            session.execute(text("SELECT 1"))
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            session.execute(text("SELECT 1"))

    with pytest.raises(Away):
        interrupted()
    assert count(database) == 0
    database.close()


def test_a_database_that_has_become_a_standby_is_left(postgres_url: str) -> None:
    """As after a failover behind a proxy: old connections lead to a server that takes no writes, new ones to the primary."""
    database = Database(postgres_url)
    migrate.upgrade(database)
    database.probe()
    with database.engine.connect() as connection:
        connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
        connection.commit()
    with pytest.raises(Away, match="read-only"), database.write() as session:
        session.execute(text("UPDATE job SET attempt = 1"))
    with database.write() as session:
        session.execute(text("UPDATE job SET attempt = 1"))
    with database.engine.connect() as connection:
        connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
        connection.commit()
    with pytest.raises(Away, match="takes no writes"):
        database.probe()
    database.probe()
    database.close()


def test_missing_tables_are_named(empty_database: Database) -> None:
    with pytest.raises(WrongSchema, match="job"):
        count(empty_database)


def test_the_time_is_that_of_the_database(database: Database) -> None:
    wrong = datetime.now(UTC) + timedelta(hours=1)
    with patch("service.store.database.utc_now", lambda: wrong), database.read() as session:
        found = now(session)
    assert found.tzinfo is UTC
    expected = wrong if database.engine.dialect.name == "sqlite" else wrong - timedelta(hours=1)
    assert abs(found - expected) < timedelta(seconds=DEADLINE_SECONDS)


def test_two_first_starts_at_once_migrate_once(empty_database: Database) -> None:
    errors: list[Exception] = []

    def start() -> None:
        mine = Database(empty_database.engine.url.render_as_string(hide_password=False))
        try:
            migrate.upgrade(mine)
        except Exception as error:  # whatever it is, it is the test's finding
            errors.append(error)
        finally:
            mine.close()

    threads = [Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert not errors
    migrate.probe(empty_database)
