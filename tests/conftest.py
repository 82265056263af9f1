"""Fixtures that start real parts, once for all tests that need them."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
import pytest
import torch

from service.store.database import Database
from tests.support import migrated, servers
from tests.support.warm import warm


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Two cores are shared with the processes that tests start.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with TemporaryDirectory(prefix="nern-pg-") as folder, servers.postgres(Path(folder)) as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of an empty PostgreSQL database."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return migrated.url_of(postgres_server, name)


@pytest.fixture(scope="session")
def inspection_command() -> Iterator[tuple[str, ...]]:
    """The command of an inspecting process that has imported everything already."""
    with TemporaryDirectory(prefix="nern-warm-") as folder, warm(Path(folder)) as command:
        yield command


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with TemporaryDirectory(prefix="nern-redis-") as folder, servers.redis_server(Path(folder)) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of each kind."""
    url = f"sqlite:///{tmp_path / 'test.sqlite3'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = Database(url)
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated database of each kind."""
    if request.param == "sqlite":
        database = migrated.sqlite(f"sqlite:///{tmp_path / 'test.sqlite3'}")
    else:
        database = migrated.postgresql(request.getfixturevalue("postgres_server"), f"test_{uuid4().hex}")
    yield database
    database.close()
