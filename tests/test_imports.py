"""What importing a module does, and what a command loads."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from tests.support.processes import environment
from tests.support.waiting import DEADLINE_SECONDS
from tests.test_structure import ROOT

# Imports every module of the packages; tells what was written, opened to the net or started meanwhile.
IMPORT_ALL = """
import importlib, json, os, pkgutil, sys

happened = []
def watch(event, arguments):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        happened.append(f"{event} {arguments[0]}")
    elif event in ("os.mkdir", "os.remove", "os.rename", "os.putenv", "socket.connect", "socket.bind", "subprocess.Popen"):
        happened.append(f"{event} {arguments[0]}")

third_party = [importlib.import_module(name) for name in sys.argv[1:]]
sys.addaudithook(watch)
modules = []
for name in ("service", "worker"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        importlib.import_module(module.name)
        modules.append(module.name)
print(json.dumps({"modules": modules, "happened": happened}))
"""

# What others do when they are imported (torch and matplotlib keep caches) is not ours to change.
THIRD_PARTY = (
    "torch",
    "torchvision",
    "matplotlib.pyplot",
    "celery.apps.worker",
    "obstore",
    "fastapi.openapi.docs",
    "alembic.config",
)


def run(program: str, *arguments: str, folder: Path, settings: dict[str, str] | None = None) -> Any:
    command = [sys.executable, "-B", "-P", "-W", "error", "-c", program, *arguments]
    ended = subprocess.run(
        command,
        cwd=folder,
        env=environment(settings or {}),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_importing_a_module_reads_no_setting_and_does_nothing(tmp_path: Path) -> None:
    nonsense = {f"NERN_{name.upper()}": "nonsense" for name in Settings.model_fields}
    seen = run(IMPORT_ALL, *THIRD_PARTY, folder=tmp_path, settings=nonsense)
    assert {"service.api.app", "service.store.jobs", "worker.celery", "worker.run"} <= set(seen["modules"])
    assert seen["happened"] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["serve", "--help"], ["worker", "--help"], ["migrate", "--help"], ["export", "--help"]]
)
def test_help_loads_nothing_that_only_a_command_needs(tmp_path: Path, arguments: list[str]) -> None:
    program = f"""
import contextlib, io, json, sys
from service import cli
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:
    cli.main({arguments!r})
print(json.dumps([shown.getvalue(), sorted(sys.modules)]))
"""
    shown, loaded = run(program, folder=tmp_path)
    assert shown.startswith("usage: nern")
    assert not {"torch", "numpy", "sqlalchemy", "fastapi", "pydantic", "uvicorn", "celery", "alembic", "asyncio"} & set(loaded)


def test_the_api_starts_without_what_few_requests_need() -> None:
    """matplotlib takes half a second, and another quarter where it may keep no cache."""
    waiting, seen = ["service.server"], set[str]()
    while waiting:
        name = waiting.pop()
        path = ROOT / name.replace(".", "/")
        files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()]
        if name not in seen:
            seen.add(name)
            waiting += [imported for file in files for imported in imported_at_once(file)]
    assert {"service.api.predictors", "nern.artefact", "torch"} <= seen
    assert not {"matplotlib", "torchvision", "timm", "onnxscript"} & {name.partition(".")[0] for name in seen}


def imported_at_once(file: Path) -> list[str]:
    """The modules that a file imports when it is imported itself, and names that may be such modules."""
    names: list[str] = []
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names
