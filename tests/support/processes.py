"""The processes of the service, as users run them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

from tests.support.waiting import DEADLINE_SECONDS

Environment = Mapping[str, str]


def environment(settings: Environment) -> dict[str, str]:
    """The environment of this process, with these NERN_* settings in place of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NERN_")}
    return {**inherited, **settings}


def with_clock_ahead(seconds: float) -> dict[str, str]:
    """Variables that put the clock of a process ahead, or back. What measures durations is not affected."""
    library = distribution("libfaketime").locate_file("libfaketime/vendor/libfaketime/src/libfaketime.so.1")
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{seconds:+}s", "DONT_FAKE_MONOTONIC": "1"}


# `nern` as a module, and as the script that an installation makes.
NERN_MODULE = (sys.executable, "-P", "-m", "service.cli")
NERN_SCRIPT = (str(Path(sys.executable).with_name("nern")),)


@contextmanager
def serving(
    folder: Path, settings: Environment, *arguments: str, nern: Sequence[str] = NERN_MODULE
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A block in which `nern serve` runs on a free port. Yields its address and its process.

    Fails unless the process ends with status 0 after SIGTERM, or the block has killed it.
    """
    command = [*nern, "serve", "--json", *arguments]
    wanted = {"NERN_PORT": "0", "NERN_DATA_DIR": str(folder / "data"), "NERN_THREADS": "1", **settings}
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment(wanted), cwd=folder)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (folder / "serve.log").read_text()
        yield json.loads(line)["url"], process
    finally:
        killed = process.poll() == -signal.SIGKILL
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(DEADLINE_SECONDS)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    assert code == 0 or killed, (folder / "serve.log").read_text()


@contextmanager
def celery_worker(folder: Path, settings: Environment) -> Iterator[subprocess.Popen[bytes]]:
    """A block in which a Celery worker runs, started as in a deployment."""
    command = [sys.executable, "-m", "celery", "-A", "worker.celery", "worker", "--concurrency", "1"]
    wanted = environment({"NERN_DATA_DIR": str(folder / "data"), "NERN_THREADS": "1", **settings})
    with (folder / "celery.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=wanted, cwd=folder)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DEADLINE_SECONDS)
        finally:
            process.kill()
            process.wait()
