"""An application on SQLite, called in this process; workers are not part of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.settings import Settings
from service.store import migrate
from service.store.database import Database


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", max_upload_bytes=2_000_000, max_body_bytes=20_000, poll_seconds=0.05)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    settings.data_dir.mkdir()
    database = Database(settings.database)
    migrate.upgrade(database)
    database.close()
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client
