"""How the log of a process is set up."""

import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.logs import configuration
from service.logs.configuration import configure, give_up
from service.logs.formats import JsonFormatter, TextFormatter
from tests.support.processes import NERN_MODULE, environment
from tests.support.waiting import DEADLINE_SECONDS


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a process sets up once is put back after each test."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    root, names = logging.getLogger(), configuration.levels(0)
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)


def test_the_settings_decide_about_form_and_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_LOG_FORMAT", "json")
    monkeypatch.setenv("NERN_LOG_LEVEL", "debug")
    configure()
    [handler] = logging.getLogger().handlers
    assert isinstance(handler.formatter, JsonFormatter)
    ours = {name: logging.getLogger(name).isEnabledFor(logging.DEBUG) for name in ("nern.x", "service.x", "worker.x")}
    assert all(ours.values()), ours
    assert not logging.getLogger("celery.x").isEnabledFor(logging.DEBUG)
    assert logging.getLogger("uvicorn.error").isEnabledFor(logging.INFO)
    for name in ("httpx", "alembic.runtime.migration", "uvicorn.access"):
        assert not logging.getLogger(name).isEnabledFor(logging.INFO), name
    monkeypatch.setenv("NERN_LOG_LEVEL", "error")
    configure()
    for name in ("nern.x", "celery.x", "httpx"):
        assert not logging.getLogger(name).isEnabledFor(logging.WARNING), name


def test_a_wrong_setting_of_the_log_is_reported_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_LOG_FORMAT", "yaml")
    configure()
    assert isinstance(logging.getLogger().handlers[0].formatter, TextFormatter)
    with pytest.raises(SystemExit, match="it can't start"):
        give_up("it can't start")


def test_what_nobody_catches_is_a_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("unforeseen")

    monkeypatch.setenv("NERN_LOG_FORMAT", "json")
    configure()
    thread = threading.Thread(target=fail, name="a thread")
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError("unforeseen too"), None)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a warning", stacklevel=1)
    first, second, third = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], second["level"], third["level"]) == ("critical", "critical", "warning")
    assert "a thread" in first["message"]
    assert first["stack"].endswith("ValueError: unforeseen")
    assert second["stack"] == "ValueError: unforeseen too"
    assert "a warning" in third["message"]


@pytest.mark.parametrize(
    ("command", "settings", "message"),
    [
        ("migrate", {}, "the database is at migration "),
        ("migrate", {"NERN_DATABASE_URL": "postgresql://nern:hunter2@127.0.0.1:1/nern"}, "nern migrate: "),
        ("migrate", {"NERN_LOG_LEVELS": "debug"}, "NERN_LOG_LEVELS is no setting; did you mean NERN_LOG_LEVEL?"),
        ("migrate", {"NERN_PORT": "many"}, "NERN_PORT: "),
    ],
)
def test_a_command_logs_json_whatever_happens(tmp_path: Path, command: str, settings: dict[str, str], message: str) -> None:
    wanted = environment({"NERN_DATA_DIR": str(tmp_path / "data"), "NERN_LOG_FORMAT": "json", **settings})
    ended = subprocess.run(
        [*NERN_MODULE, command], env=wanted, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
    [line] = [json.loads(line) for line in ended.stderr.splitlines()]
    assert message in line["message"]
    assert (ended.returncode == 0) == (not settings)
    assert "hunter2" not in ended.stderr
    assert ended.stdout == ""
