"""A server on SQLite in a thread of this process, called over a real socket; workers are not part of it.

Whatever tests ask for, the OpenAPI document must have the status and the media type of the answer.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.api.app import create_app
from service.inspection import process
from service.settings import Settings
from service.store.database import Database
from tests.support.schemas import assert_documented
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


@cache
def document() -> Any:
    """The OpenAPI document. It does not depend on the settings, and takes a while."""
    with TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder) / "data")
        with embedded_database(settings):
            return create_app(settings).openapi()


@pytest.fixture
def client(app: FastAPI) -> Iterator[httpx.Client]:
    with served(app) as client:
        client.event_hooks = {"response": [lambda answer: assert_documented(answer, document())]}
        yield client
