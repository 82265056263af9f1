"""Keeps a child process running. A child that ends is started again, after a delay that grows if the runs are short."""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread

log = logging.getLogger(__name__)

# How long a child may take to end after SIGTERM before it is killed. A worker first finishes its training step.
GRACE_SECONDS = 20.0

# The probe fails after this many short runs in a row.
FAILING_RUNS = 2

# A child whose runs end with an error so many times in a row, each time soon, has a fault that does not go away by itself.
FAULTY_RUNS = 3

# The exit status of a child that ends because of an error that may not happen again (EX_TEMPFAIL of sysexits.h).
TEMPORARY = 75


def module_command(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of this project.

    The options -P and -E keep Python from importing a module of the same name from the current folder or from PYTHONPATH.
    """
    return [sys.executable, "-E", "-P", "-m", name, *arguments]


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a child is started again. A run of at least `long_run_seconds` resets the count of short runs."""

    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    long_run_seconds: float = 120.0

    def delay(self, short_runs: int) -> float:
        """Seconds to wait after this many short runs in a row. Each short run doubles the delay, up to `longest_seconds`."""
        return min(self.longest_seconds, self.first_seconds * 2.0 ** min(max(short_runs - 1, 0), 64))


class KeepsEnding(Exception):
    """The latest runs of the child were all short."""


class Supervisor:
    """One child process, and the thread that starts the child again when it ends.

    The output of the child is appended to a log file, or goes where the output of this process goes. The standard input of the
    child is a pipe that this process holds open. The pipe ends when this process ends, however that happens, so that the child
    can end then too. `on_end` is called with the process id of a child that has ended, and how it ended. `on_fault` is called
    with a sentence if FAULTY_RUNS short runs in a row have ended with an error: with a status other than 0 and TEMPORARY.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        log_file: Path | None = None,
        environment: Mapping[str, str] | None = None,
        on_end: Callable[[int, str], None] = lambda process, end: None,
        on_fault: Callable[[str], None] = lambda fault: None,
        backoff: Backoff | None = None,
        grace_seconds: float = GRACE_SECONDS,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = command
        self._name = name
        self._log_file = log_file
        self._environment = environment
        self._on_end = on_end
        self._on_fault = on_fault
        self._backoff = backoff or Backoff()
        self._grace_seconds = grace_seconds
        self._seconds = seconds
        self._lock = Lock()
        self._stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._short_runs = 0
        self._faulty_runs = 0
        self._last_end = ""
        self._ended = Event()

    @contextmanager
    def running(self, stopping: Event) -> Iterator[None]:
        """A block in which the child runs. When `stopping` is set or the block ends, the child gets SIGTERM.

        The child has ended when the context manager returns. A child that does not end within the grace period is killed.
        """
        supervising = Thread(target=self._supervise, args=(stopping,), name=f"{self._name} supervisor", daemon=True)
        # A thread sends SIGTERM as soon as `stopping` is set, because the block itself may take long to end after that.
        telling = Thread(target=self._tell, args=(stopping,), name=f"{self._name} stop", daemon=True)
        supervising.start()
        telling.start()
        try:
            yield
        finally:
            stopping.set()
            telling.join()
            supervising.join(self._grace_seconds)
            self._signal(signal.SIGKILL)
            supervising.join()

    def nudge(self) -> None:
        """Writes a line to the standard input of the child, if it runs."""
        with self._lock, suppress(OSError, ValueError):
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.write(b"\n")

    def wait(self, seconds: float) -> None:
        """Waits until the child has ended and is not started again, or until the time has passed."""
        self._ended.wait(seconds)

    def probe(self) -> None:
        """Raises KeepsEnding if at least FAILING_RUNS runs in a row were short and the current run is not yet long."""
        with self._lock:
            if self._short_runs < FAILING_RUNS or self._runs_long():
                return
        raise KeepsEnding(f"the {self._name} {self._last_end}, {self._short_runs} times in a row{self._where()}")

    def _supervise(self, stopping: Event) -> None:
        while not stopping.is_set():
            try:
                end, is_fault = self._run()
            except OSError as error:
                end, is_fault = f"could not be started ({error})", True
            with self._lock:
                short = not self._runs_long()
                self._short_runs = self._short_runs + 1 if short else 0
                self._faulty_runs = self._faulty_runs + 1 if short and is_fault else 0
                self._last_end = end
                self._process = None
            delay = self._backoff.delay(self._short_runs)
            if not stopping.is_set():
                if self._faulty_runs >= FAULTY_RUNS:
                    self._on_fault(f"the {self._name} {end}, {self._faulty_runs} times in a row{self._where()}")
                log.error("the %s %s; it is started again in %g s%s", self._name, end, delay, self._where())
            stopping.wait(delay)
        self._ended.set()

    def _run(self) -> tuple[str, bool]:
        """Runs the child once and waits for its end.

        Returns how the child ended, as the end of a sentence about it, and whether the end tells of a lasting fault.
        """
        with self._lock, self._log_file.open("ab") if self._log_file else nullcontext() as output:
            self._started = self._seconds()
            if self._stopping:
                return "was not started", False
            process = self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=self._environment, bufsize=0
            )
        with process:
            code = process.wait()
        end = f"ended with status {code}" if code >= 0 else f"was ended by signal {-code} ({signal.strsignal(-code)})"
        self._on_end(process.pid, end)
        return end, code > 0 and code != TEMPORARY

    def _where(self) -> str:
        return f"; its log is {self._log_file}" if self._log_file else ""

    def _runs_long(self) -> bool:
        return self._process is not None and self._seconds() - self._started >= self._backoff.long_run_seconds

    def _tell(self, stopping: Event) -> None:
        stopping.wait()
        with self._lock:
            self._stopping = True
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._process is not None:
                self._process.send_signal(number)
