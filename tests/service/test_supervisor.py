"""A child process is kept running: real processes, with delays that are short or a clock that the test moves."""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest

from service.supervisor import Backoff, KeepsEnding, Supervisor, module_command
from tests.support.waiting import until

QUICK = Backoff(first_seconds=0.01, longest_seconds=0.05)


class Child:
    """A supervised Python program. Each of its runs writes its process id as a line."""

    def __init__(self, folder: Path, program: str, **options: Any) -> None:
        self.runs_file = folder / "runs"
        self.runs_file.touch()
        self.log_file = folder / "child.log"
        begin = f"import os, signal, sys, time; open({str(self.runs_file)!r}, 'a').write(f'{{os.getpid()}}\\n')"
        command = [sys.executable, "-c", f"{begin}\n{program}"]
        self.stopping = Event()
        self.supervisor = Supervisor(command, name="child", log_file=self.log_file, **{"backoff": QUICK, **options})

    def running(self) -> AbstractContextManager[None]:
        return self.supervisor.running(self.stopping)

    def runs(self) -> Sequence[int]:
        return [int(line) for line in self.runs_file.read_text().splitlines()]

    def failing(self) -> bool:
        try:
            self.supervisor.probe()
        except KeepsEnding:
            return True
        return False


def alive(process_id: int) -> bool:
    return psutil.pid_exists(process_id) and psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE


def test_a_child_that_ends_again_and_again_is_reported_and_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    child = Child(tmp_path, "sys.exit('what is wrong')")
    assert not child.failing()
    with caplog.at_level(logging.ERROR), child.running():
        until(lambda: len(child.runs()) > 3, what="four runs")
        assert child.failing()
        with pytest.raises(KeepsEnding, match=rf"the child ended with status 1, \d+ times in a row; .*{child.log_file}"):
            child.supervisor.probe()
    assert child.log_file.read_text().count("what is wrong") == len(child.runs())
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:2] == [
        f"the child ended with status 1; it is started again in {seconds} s; its log is {child.log_file}"
        for seconds in (0.01, 0.02)
    ]


@pytest.mark.parametrize(
    ("end", "is_fault"),
    [("sys.exit(1)", True), ("sys.exit('no GPU')", True), ("sys.exit(75)", False), ("os.kill(os.getpid(), 9)", False)],
)
def test_a_child_with_a_lasting_fault_is_told(tmp_path: Path, end: str, is_fault: bool) -> None:
    told: list[str] = []
    child = Child(tmp_path, end, on_fault=told.append)
    with child.running():
        until(lambda: len(child.runs()) > 5, what="six runs")
    assert bool(told) == is_fault
    if told:
        assert told[0].startswith("the child ended with status 1, 3 times in a row")


def test_a_child_that_ends_once_is_no_alarm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    child = Child(tmp_path, "time.sleep(3600)")
    with child.running():
        first = until(child.runs, what="a run")[0]
        os.kill(first, 9)
        until(lambda: len(child.runs()) == 2, what="a second run")
        assert not child.failing()
    assert "the child was ended by signal 9 (Killed); it is started again" in caplog.text


def test_the_end_of_each_run_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, str]] = []
    child = Child(
        tmp_path, "sys.exit(3) if os.path.exists('x') else os.kill(os.getpid(), 9)", on_end=lambda *end: told.append(end)
    )
    with child.running():
        until(lambda: len(told) > 1, what="two ends")
    assert told[0] == (child.runs()[0], "was ended by signal 9 (Killed)")


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(first_seconds=1, longest_seconds=60)
    assert [backoff.delay(short_runs) for short_runs in (0, 1, 2, 3, 6, 7, 10_000)] == [1, 1, 2, 4, 32, 60, 60]


def test_a_long_run_makes_up_for_short_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    go_on = tmp_path / "go on"
    program = f"""
if len(open({str(tmp_path / "runs")!r}).readlines()) <= 3: sys.exit(1)
while not os.path.exists({str(go_on)!r}): time.sleep(0.01)
"""
    child = Child(tmp_path, program, seconds=lambda: now[0])
    with child.running():
        until(lambda: len(child.runs()) == 4, what="a fourth run")
        assert child.failing()
        now[0] += Backoff().long_run_seconds
        assert not child.failing()
        go_on.touch()
        until(lambda: len(child.runs()) == 5, what="a fifth run")
    delays = [record.args[2] for record in caplog.records if isinstance(record.args, tuple)]
    assert delays[:4] == [0.01, 0.02, 0.04, 0.01]


@pytest.mark.parametrize("by", ["the event", "the end of the block"])
def test_a_child_is_asked_to_end_and_not_started_again(tmp_path: Path, by: str, caplog: pytest.LogCaptureFixture) -> None:
    said = tmp_path / "said"
    program = f"""
signal.signal(signal.SIGTERM, lambda *_: (open({str(said)!r}, 'a').write('asked'), sys.exit(0)))
open({str(tmp_path / "ready")!r}, 'w').close()
while True: time.sleep(0.01)
"""
    child = Child(tmp_path, program)
    with child.running():
        until((tmp_path / "ready").exists, what="the child")
        if by == "the event":
            child.stopping.set()
            until(lambda: not alive(child.runs()[0]), what="the end of the child")
    assert said.read_text() == "asked"
    assert [alive(run) for run in child.runs()] == [False]
    assert not caplog.records


def test_a_child_that_does_not_end_when_it_is_asked_to_is_killed(tmp_path: Path) -> None:
    program = f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({str(tmp_path / "ready")!r}, 'w').close()
while True: time.sleep(0.01)
"""
    child = Child(tmp_path, program, grace_seconds=0.2)
    with child.running():
        until((tmp_path / "ready").exists, what="the child")
    assert [alive(run) for run in child.runs()] == [False]


def test_a_command_that_can_not_be_started_is_reported_and_tried_again(tmp_path: Path) -> None:
    log_file = tmp_path / "child.log"
    supervisor = Supervisor([str(tmp_path / "nothing")], name="child", log_file=log_file, backoff=QUICK)

    def reported() -> bool:
        try:
            supervisor.probe()
        except KeepsEnding as error:
            return "the child could not be started" in str(error)
        return False

    with supervisor.running(Event()):
        until(reported, what="the report")


def test_nothing_in_the_current_folder_or_in_pythonpath_takes_the_place_of_a_module_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("worker", "service", "nern", "logging"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('somebody else')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}")
    monkeypatch.setenv("NERN_PORT", "many")
    supervisor = Supervisor(module_command("worker"), name="worker", log_file=tmp_path / "log", backoff=QUICK)
    with supervisor.running(Event()):
        # Our worker is who reads our settings.
        until(lambda: (tmp_path / "log").exists() and "Settings" in (tmp_path / "log").read_text(), what="our worker")
    assert "somebody else" not in (tmp_path / "log").read_text()
