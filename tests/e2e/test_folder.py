"""The current folder is the user's: nothing in it is run, whatever its name."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from tests.e2e.flow import main_job
from tests.support.processes import NERN_MODULE, NERN_SCRIPT, environment, serving
from tests.support.waiting import DEADLINE_SECONDS, until

NAMES = ("worker", "service", "nern", "migrations", "logging", "torch", "sqlalchemy", "celery")


def put_modules(folder: Path) -> None:
    """Modules of somebody's own, named as ours and as those that we use: each leaves a mark when it is run."""
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'a').write('{name} ')\nraise SystemExit(1)\n")


@pytest.mark.parametrize("nern", [NERN_SCRIPT, NERN_MODULE], ids=["script", "module"])
def test_files_of_the_users_own_are_not_run(tmp_path: Path, nern: Sequence[str]) -> None:
    put_modules(tmp_path)
    with serving(tmp_path, {}, nern=nern) as (url, _):
        main_job(url)
        assert httpx.get(f"{url}/readyz", timeout=DEADLINE_SECONDS).json()["worker"] == "ok"
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def test_a_worker_of_its_own_does_not_run_them_either(tmp_path: Path) -> None:
    put_modules(tmp_path)
    wanted = environment({"NERN_DATA_DIR": str(tmp_path / "data"), "NERN_DEVICE": "cuda:99"})
    ended = subprocess.run([*NERN_SCRIPT, "worker"], cwd=tmp_path, env=wanted, capture_output=True, text=True, check=False)
    assert "NERN_DEVICE is cuda:99" in ended.stderr
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def test_celery_looks_into_the_folder_that_it_is_given(tmp_path: Path) -> None:
    """Celery puts its working folder first on the path; docs/deployment.md says so and uses `--workdir`."""
    put_modules(tmp_path)
    (tmp_path / "empty").mkdir()
    celery = str(Path(sys.executable).with_name("celery"))
    command = [celery, "--workdir", str(tmp_path / "empty"), "-A", "worker.celery", "report"]
    wanted = environment({"NERN_BROKER_URL": "redis://127.0.0.1:1/7"})
    ended = subprocess.run(command, cwd=tmp_path, env=wanted, capture_output=True, text=True, check=False)
    assert "task_default_queue: 'nern'" in ended.stdout, ended.stderr
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def test_a_worker_that_keeps_ending_is_reported(tmp_path: Path) -> None:
    with (
        serving(tmp_path, {"NERN_DEVICE": "cuda:99"}) as (url, _),
        httpx.Client(base_url=url, timeout=DEADLINE_SECONDS) as client,
    ):

        def reported() -> httpx.Response | None:
            answer = client.get("/readyz")
            return answer if answer.status_code == 503 and answer.json()["checks"]["worker"] != "ok" else None

        answer = until(reported, what="the report")
        assert answer is not None
        assert "worker" in answer.json()["detail"]
        assert answer.json()["checks"]["worker"] != "ok"
        assert answer.json()["checks"]["database"] == "ok"
    told = (tmp_path / "serve.log").read_text()
    assert f"its log is {tmp_path / 'data' / 'logs' / 'worker.log'}" in told
    assert "NERN_DEVICE is cuda:99" in (tmp_path / "data" / "logs" / "worker.log").read_text()
