from collections.abc import Iterator
from pathlib import Path

import pytest

from service.inspection import process
from tests.support.place import Place


@pytest.fixture(autouse=True)
def _warm_inspectors(inspection_command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    # Every job needs an inspected checkpoint. A new process for each would take most of the time.
    monkeypatch.setattr(process, "COMMAND", inspection_command)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "data")
    yield place
    place.close()
