"""The processes that wait for uploaded files: what they may do, and how they and the service end."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from nern import tensorfile
from service import problems
from service.api.app import create_app
from service.inspection import pool, process
from service.inspection.limits import WAITING_DESCRIPTORS
from service.inspection.pool import MAX_TASKS, Inspectors
from service.inspection.process import Inspector, Task
from service.readiness import Readiness
from service.settings import Settings
from service.store import migrate
from service.store.database import Database
from tests.support.networks import resnet8, saved
from tests.support.pipes import endless
from tests.support.waiting import DEADLINE_SECONDS, until

NETWORK = resnet8()


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Reading a checkpoint, whose tensors don't fit into a pipe."""
    (tmp_path / "upload").write_bytes(saved(NETWORK))
    return Task("checkpoint", tmp_path / "upload", tmp_path / "tensors", seconds=DEADLINE_SECONDS)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


async def true(condition: Callable[[], Any]) -> None:
    await asyncio.to_thread(until, condition)


def limit_of_descriptors(pid: int) -> int:
    _, most = psutil.Process(pid).rlimit(psutil.RLIMIT_NOFILE)
    return int(most)


def warm(pid: int) -> bool:
    """Whether a process has everything imported and waits, or reads."""
    return limit_of_descriptors(pid) <= WAITING_DESCRIPTORS


def instead_of_reading(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Has inspecting processes run `code` where they would read a checkpoint."""
    script = f"""
import os, socket
from service.inspection import child

def inspect(file, output, size, key):
{code}

child.warm_up = lambda: None
child.inspect_checkpoint = inspect
child.main()
"""
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-I", "-c", script))


def test_a_waiting_process_reads_one_file_and_the_next_one_waits(task: Task) -> None:
    async def read_three() -> None:
        before = children()
        async with Inspectors(1) as inspectors:
            seen: set[int] = set()

            def new() -> set[int]:
                return children() - before - seen

            for number in range(3):
                await true(new)
                seen |= new()
                found = await inspectors.read(task)
                assert found["format"] == "torch-zip"
                assert tensorfile.load(task.target).keys() == NETWORK.keys()
                assert not children() & seen
                assert len(seen) == number + 1
        assert children() == before

    asyncio.run(read_three())


def test_a_file_that_comes_before_a_process_is_ready_waits_for_it(task: Task) -> None:
    async def read() -> Any:
        async with Inspectors(1) as inspectors:
            return await asyncio.gather(*(inspectors.read(task) for _ in range(3)))

    assert [found["format"] for found in asyncio.run(read())] == ["torch-zip"] * 3


def test_entering_waits_for_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-I", "-c", "import signal; signal.pause()"))

    async def enter() -> None:
        before = children()
        async with Inspectors(2):
            await true(lambda: len(children() - before) == 2)
        assert children() == before

    asyncio.run(enter())


def test_a_waiting_process_that_dies_is_replaced(task: Task) -> None:
    async def kill_and_read() -> None:
        before = children()
        async with Inspectors(1) as inspectors:
            await true(lambda: children() - before)
            (first,) = children() - before
            await true(lambda: warm(first))
            os.kill(first, signal.SIGKILL)
            await true(lambda: children() - before - {first})
            assert (await inspectors.read(task))["format"] == "torch-zip"

    asyncio.run(kill_and_read())


def test_a_process_that_dies_as_the_file_is_handed_over_is_replaced(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first process says that it waits, and is gone; all others read.
    once = task.target.with_name("once")
    script = f"""
import os, sys
from service.inspection import child
try:
    os.close(os.open({str(once)!r}, os.O_CREAT | os.O_EXCL))
except FileExistsError:
    child.main()
else:
    os.write(0, child.READY)
"""
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-I", "-c", script))
    assert asyncio.run(Inspectors(0).read(task))["format"] == "torch-zip"
    assert once.exists()


def test_processes_that_can_not_be_started_are_no_fault_of_the_file(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-I", "-c", "raise SystemExit('broken')"))
    monkeypatch.setattr(pool, "START_SECONDS", 0.5)

    async def read(waiting: int) -> None:
        async with Inspectors(waiting) as inspectors:
            with pytest.raises(problems.Unavailable, match="try again"):
                await inspectors.read(task)

    asyncio.run(read(0))
    asyncio.run(read(1))


def test_a_cancelled_request_ends_its_process(task: Task) -> None:
    async def cancel() -> None:
        before = children()
        # So long that nothing else ends the process.
        reading = asyncio.create_task(Inspectors(0).read(replace(task, seconds=3600)))
        await true(lambda: children() - before)
        (pid,) = children() - before
        await true(lambda: warm(pid))
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert children() == before

    with endless(task.target):
        asyncio.run(cancel())


@pytest.mark.parametrize(("waiting", "descriptors"), [(1, WAITING_DESCRIPTORS), (0, 0)], ids=["waiting", "reading"])
def test_no_process_is_left_when_the_service_is_killed(task: Task, tmp_path: Path, waiting: int, descriptors: int) -> None:
    script = f"""
import asyncio
from pathlib import Path
from service.inspection.pool import Inspectors, NotWarmedUp
from service.inspection.process import Task

async def main():
    async with Inspectors({waiting}) as inspectors:
        if {waiting}:
            await asyncio.Event().wait()
        await inspectors.read(Task("checkpoint", Path({str(task.source)!r}), Path({str(task.target)!r}), seconds=10))

asyncio.run(main())
"""
    with endless(task.target), subprocess.Popen([sys.executable, "-P", "-c", script], cwd=tmp_path) as service:
        parent = psutil.Process(service.pid)
        until(lambda: [child for child in parent.children() if limit_of_descriptors(child.pid) == descriptors])
        (child,) = parent.children()
        service.kill()
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_making_the_application_starts_nothing(tmp_path: Path) -> None:
    before = children()
    create_app(Settings(data_dir=tmp_path, inspectors=1))
    assert children() == before


def test_the_application_has_a_process_wait_as_long_as_it_runs(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, inspectors=1)
    database = Database(settings.database)
    migrate.upgrade(database)
    database.close()

    async def run() -> None:
        before = children()
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            readiness: Readiness = app.state.context.readiness
            assert (await readiness.states())["inspection"] == "NotWarmedUp"
            await true(lambda: children() - before)
            while (await readiness.states())["inspection"] != "ok":
                await asyncio.sleep(0.05)
        assert children() == before

    asyncio.run(run())


def test_a_waiting_process_has_no_descriptor_more_than_it_needs(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "from service.inspection import child, limits; limits.WAITING_DESCRIPTORS -= 1; child.main()"
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-I", "-c", script))
    with pytest.raises(problems.TooDemanding, match="exceeded its limits"):
        asyncio.run(Inspectors(0).read(task))


def test_few_files_are_read_at_the_same_time(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, most, release = 0, 0, asyncio.Event()

    class Patient(Inspector):
        """Reads nothing until it may."""

        def __init__(self) -> None:
            pass

        @classmethod
        async def start(cls) -> Self:
            return cls()

        def take(self) -> None:
            pass

        async def read(self, task: Task) -> bytes:
            nonlocal reading, most
            reading += 1
            most = max(most, reading)
            await release.wait()
            reading -= 1
            return b"{}"

        async def close(self) -> None:
            pass

    async def read() -> None:
        inspectors = Inspectors(0)
        tasks = [asyncio.create_task(inspectors.read(task)) for _ in range(3 * MAX_TASKS)]
        for _ in range(100):  # each goes as far as it can
            await asyncio.sleep(0)
        assert reading == MAX_TASKS
        release.set()
        assert await asyncio.gather(*tasks) == [{}] * 3 * MAX_TASKS
        assert most == MAX_TASKS

    monkeypatch.setattr(pool, "Inspector", Patient)
    asyncio.run(read())


@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [
        ("open('/etc/hostname')", "OSError"),
        ("open('new', 'wb')", "OSError"),
        ("socket.socket()", "OSError"),
        ("os.pipe()", "OSError"),
        ("bytearray(3 * 2**30)", "MemoryError"),
        ("[os.write(output.fileno(), bytes(2**21)) for _ in range(9)]", "OSError"),
    ],
)
def test_a_process_that_has_waited_can_do_little(
    task: Task, monkeypatch: pytest.MonkeyPatch, attempt: str, outcome: str
) -> None:
    instead_of_reading(
        monkeypatch,
        f"""
    try:
        {attempt}
    except {outcome}:
        return {{"format": "refused"}}
    return {{"format": "done"}}
""",
    )

    async def read() -> Any:
        before = children()
        async with Inspectors(1) as inspectors:
            await true(lambda: children() - before)
            await true(lambda: all(map(warm, children() - before)))
            return await inspectors.read(task)

    assert asyncio.run(read()) == {"format": "refused"}


@pytest.mark.parametrize(
    "code",
    [
        "    os.write(1, b'{}'); os._exit(1)",
        "    raise SystemExit(1)",
        "    return {'format': 'x' * 70_000_000}",
    ],
)
def test_what_ends_without_an_answer_or_says_too_much_is_refused(
    task: Task, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    instead_of_reading(monkeypatch, code)
    with pytest.raises(problems.TooDemanding, match="exceeded its limits"):
        asyncio.run(Inspectors(0).read(task))


def test_a_process_that_is_killed_is_no_fault_of_the_file(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel does when the machine has no memory left."""
    instead_of_reading(monkeypatch, "    os.kill(os.getpid(), 9)")
    with pytest.raises(problems.Unavailable, match="was killed; try again") as raised:
        asyncio.run(Inspectors(0).read(task))
    assert raised.value.headers["Retry-After"] == "5"


def test_nothing_in_the_current_folder_is_run(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("service", "nern", "torch", "json", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("open('pwned', 'w')\nraise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert asyncio.run(Inspectors(0).read(task))["format"] == "torch-zip"
    assert not (tmp_path / "pwned").exists()


def test_a_process_ends_by_itself_if_nobody_ends_it(tmp_path: Path) -> None:
    script = """
import signal
from service.inspection.limits import limit
limit(memory_bytes=2**20, output_bytes=1000, seconds=1)
signal.pause()
"""
    ended = subprocess.run([sys.executable, "-P", "-c", script], cwd=tmp_path, timeout=DEADLINE_SECONDS, check=False)
    assert ended.returncode == -signal.SIGALRM


def test_the_kernel_ends_a_process_that_reads_a_file_before_the_service(tmp_path: Path) -> None:
    script = """
from service.inspection.limits import limit_while_waiting
limit_while_waiting()
print(open("/proc/self/oom_score_adj").read())
"""
    command = [sys.executable, "-P", "-c", script]
    said = subprocess.run(command, cwd=tmp_path, timeout=DEADLINE_SECONDS, check=True, capture_output=True).stdout
    assert int(said) == 1000 > int(Path("/proc/self/oom_score_adj").read_text())


def test_processor_time_is_limited(tmp_path: Path) -> None:
    script = """
import signal
from service.inspection.limits import limit
limit(memory_bytes=2**20, output_bytes=1000, seconds=1)
signal.alarm(0)
while True: pass
"""
    ended = subprocess.run([sys.executable, "-P", "-c", script], cwd=tmp_path, timeout=DEADLINE_SECONDS, check=False)
    assert ended.returncode == -signal.SIGXCPU, "a process that is killed is no fault of the file"
