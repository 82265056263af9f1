"""Keeps a child process running: starts it again when it ends, ever less often if it ends again and again."""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread

log = logging.getLogger(__name__)

# How long a stopping child may take for its step, before it is killed.
GRACE_SECONDS = 20.0

# So many short runs in a row make the probe fail.
FAILING_RUNS = 2


def module_command(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours: neither the current folder nor PYTHONPATH can put another one in its place."""
    return [sys.executable, "-E", "-P", "-m", name, *arguments]


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a child is started again. Only short runs count, and a long one makes up for all of them."""

    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    long_run_seconds: float = 120.0

    def delay(self, short_runs: int) -> float:
        """Seconds to wait after so many short runs in a row; they double from one to the next."""
        return min(self.longest_seconds, self.first_seconds * 2.0 ** min(max(short_runs - 1, 0), 64))


class KeepsEnding(Exception):
    """The child ends again and again, soon after each start."""


class Supervisor:
    """One child process and the thread that starts it again. The child's output is appended to a log file.

    The child's standard input stays open for as long as this process lives, so that the child can tell when it should end.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        log_file: Path,
        environment: Mapping[str, str] | None = None,
        backoff: Backoff | None = None,
        grace_seconds: float = GRACE_SECONDS,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = command
        self._name = name
        self._log_file = log_file
        self._environment = environment
        self._backoff = backoff or Backoff()
        self._grace_seconds = grace_seconds
        self._seconds = seconds
        self._lock = Lock()
        self._stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._short_runs = 0
        self._last_end = ""

    @contextmanager
    def running(self, stopping: Event) -> Iterator[None]:
        """The child runs until `stopping` is set or the block ends, and has ended when the block has."""
        supervising = Thread(target=self._supervise, args=(stopping,), name=f"{self._name} supervisor", daemon=True)
        # The child is told while the block goes on: both may take a while to stop.
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

    def probe(self) -> None:
        """Raises KeepsEnding if the latest runs were all short, until the child has run for long again."""
        with self._lock:
            if self._short_runs < FAILING_RUNS or self._runs_long():
                return
        raise KeepsEnding(f"the {self._name} {self._last_end}, {self._short_runs} times in a row; its log is {self._log_file}")

    def _supervise(self, stopping: Event) -> None:
        while not stopping.is_set():
            try:
                end = self._run()
            except OSError as error:
                end = f"could not be started ({error})"
            with self._lock:
                self._short_runs = 0 if self._runs_long() else self._short_runs + 1
                self._last_end = end
                self._process = None
            delay = self._backoff.delay(self._short_runs)
            if not stopping.is_set():
                log.error("the %s %s; it is started again in %g s; its log is %s", self._name, end, delay, self._log_file)
            stopping.wait(delay)

    def _run(self) -> str:
        """One run of the child, from its start to its end; how it ended."""
        with self._lock, self._log_file.open("ab") as output:
            self._started = self._seconds()
            if self._stopping:
                return "was not started"
            process = self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=self._environment
            )
        with process:
            code = process.wait()
        return f"ended with status {code}" if code >= 0 else f"was ended by signal {-code} ({signal.strsignal(-code)})"

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
