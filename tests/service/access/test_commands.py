"""The command `nern keys`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import cli
from service.access import tokens
from service.settings import Settings
from service.store.database import Database
from tests.support.processes import environment, serving
from tests.support.servers import free_port
from tests.support.stored import embedded_database
from tests.support.waiting import DEADLINE_SECONDS


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `nern keys` with these arguments, and returns what it prints."""
    monkeypatch.setenv("NERN_DATA_DIR", str(tmp_path / "data"))

    def keys(*arguments: str) -> str:
        cli.main(["keys", *arguments])
        return capsys.readouterr().out

    with embedded_database(Settings(data_dir=tmp_path / "data")):
        yield keys


def test_a_key_is_made_listed_rotated_and_revoked(run: Any) -> None:
    key = run("create", "--owner", "team-a", "--scope", "read", "--name", "ci", "--days", "90").strip()
    assert tokens.is_key(key)
    [row] = json.loads(run("list", "--json"))
    assert (row["owner"], row["scope"], row["name"], row["start"]) == ("team-a", "read", "ci", key[:9])
    assert row["expires_at"][:10] > row["created_at"][:10]
    table = run("list")
    assert key not in table
    assert all(word in table.splitlines()[1] for word in (row["id"], "team-a", "read", "ci", key[:9]))
    rotated = json.loads(run("rotate", row["id"], "--overlap-hours", "0", "--json"))
    assert tokens.is_key(rotated["key"])
    newest, oldest = json.loads(run("list", "--json"))
    assert (newest["id"], newest["revoked_at"]) == (rotated["id"], None)
    assert oldest["revoked_at"]
    run("revoke", rotated["id"])
    assert json.loads(run("list", "--owner", "team-a", "--json"))[0]["revoked_at"]
    assert json.loads(run("list", "--owner", "team-b", "--json")) == []


@pytest.mark.parametrize(
    ("arguments", "named"), [(["create", "--owner", "Team A"], "no name of an owner"), (["revoke", "none"], "there is no key")]
)
def test_what_is_impossible_is_refused_with_a_reason(run: Any, arguments: list[str], named: str) -> None:
    with pytest.raises(SystemExit, match=named):
        run(*arguments)


def test_a_key_of_the_command_opens_a_service_that_others_can_reach(tmp_path: Path) -> None:
    """Such a service does not start without any key."""
    settings = {"NERN_DATA_DIR": str(tmp_path / "data"), "NERN_HOST": "0.0.0.0"}

    def nern(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-P", "-m", "service.cli", *arguments]
        return subprocess.run(
            command, env=environment(settings), capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
        )

    refused = nern("serve", "--no-worker")
    assert refused.returncode != 0
    assert "nern keys create" in refused.stderr
    key = nern("keys", "create", "--owner", "team-a").stdout.strip()
    port = free_port()
    with (
        serving(tmp_path, {**settings, "NERN_PORT": str(port)}, "--no-worker"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_SECONDS) as client,
    ):
        assert client.get("/v1/jobs").status_code == 401
        assert client.get("/v1/jobs", headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_a_database_without_tables_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERN_DATABASE_URL", f"sqlite:///{tmp_path / 'empty.sqlite3'}")
    Database(f"sqlite:///{tmp_path / 'empty.sqlite3'}").close()
    with pytest.raises(SystemExit, match="nern keys: "):
        cli.main(["keys", "list"])
