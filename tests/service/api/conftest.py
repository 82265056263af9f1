"""A server on SQLite in a thread of this process, called over a real socket; workers are not part of it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.api.app import create_app
from service.inspection import process
from service.settings import Settings
from service.store.database import Database
from tests.support.served import served
from tests.support.stored import embedded_database


@pytest.fixture(autouse=True)
def _warm_inspectors(inspection_command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    # What an inspecting process is, and that it takes its limits, is tested in tests/service/test_inspectors.py.
    monkeypatch.setattr(process, "COMMAND", inspection_command)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", max_upload_bytes=2_000_000, max_body_bytes=20_000, poll_seconds=0.05, inspectors=0
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The server's database."""
    with embedded_database(settings) as database:
        yield database


@pytest.fixture
def app(settings: Settings, database: Database) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[httpx.Client]:
    with served(app) as client:
        yield client
