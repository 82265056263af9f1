"""The service as deployed: PostgreSQL, Redis, API replicas and Celery workers. A process that ends is started again."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread

import httpx
import psutil

from bench.campaign.clients import API_KEYS, key_of
from bench.campaign.postgres import Postgres, postgres
from service.store import migrate
from service.store.database import Database
from tests.support import servers
from tests.support.processes import NERN_MODULE, environment, with_clock_ahead
from tests.support.waiting import until

# So often the orchestrator looks for processes that have ended.
RESTART_SECONDS = 0.3

# So far apart are the clocks of the machines.
SKEW_SECONDS = 60

CELERY = (sys.executable, "-m", "celery", "-A", "worker.celery", "worker", "--concurrency", "1")


class Part:
    """A process that is started again whenever it has ended."""

    def __init__(self, name: str, command: Sequence[str], settings: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self._command, self._folder = command, folder
        self._environment = environment(settings)
        self._lock = Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def keep(self) -> None:
        """Starts the process unless it runs."""
        with self._lock:
            if self.process is not None and self.process.poll() is None:
                return
            with (self._folder / f"{self.name}.log").open("ab") as log:
                self.process = subprocess.Popen(
                    self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment, cwd=self._folder
                )
            self.starts += 1

    def pid(self) -> int | None:
        """The process id, if the process runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def children(self) -> list[psutil.Process]:
        """The children of the process."""
        with suppress(psutil.NoSuchProcess):
            if pid := self.pid():
                return psutil.Process(pid).children()
        return []

    def end(self, seconds: float = 60) -> float:
        """Ends the process with SIGTERM. Returns the seconds that it took. Raises TimeoutExpired."""
        assert self.process is not None
        started = time.monotonic()
        self.process.terminate()
        self.process.wait(seconds)
        return time.monotonic() - started


@dataclass
class Deployment:
    """The parts, and where they are. `urls` are the addresses of the API replicas."""

    folder: Path
    postgres: Postgres
    redis_url: str
    broker: Part
    settings: Mapping[str, str]
    apis: list[Part]
    workers: list[Part]
    urls: list[str]
    database: Database
    resting: Event = field(default_factory=Event)
    """While set, nothing is started again."""

    @property
    def database_url(self) -> str:
        return self.postgres.url

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def ready(self) -> None:
        """Waits until all replicas are ready and all workers are listed."""
        for url in self.urls:
            until(partial(_ready, url), what=f"{url} ready")
        until(lambda: len(_workers(self.urls[0])) >= len(self.workers), what="the workers")


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def _workers(url: str) -> list[object]:
    try:
        answer = httpx.get(f"{url}/v1/workers", timeout=10, headers=key_of())
    except httpx.TransportError:
        return []
    return list(answer.json()) if answer.status_code == 200 else []


def _clock_of(number: int) -> dict[str, str]:
    """The clocks of the machines differ: the first worker is right, the second one is SKEW_SECONDS ahead, and so on."""
    return with_clock_ahead(SKEW_SECONDS * number) if number else {}


@contextmanager
def deployed(folder: Path, settings: Mapping[str, str], *, workers: int = 3, replicas: int = 2) -> Iterator[Deployment]:
    """A block in which the deployment runs."""
    with ExitStack() as running:
        for name in ("blobs", "tmp"):
            (folder / name).mkdir()
        server = running.enter_context(postgres(folder))
        port = servers.free_port()
        redis_url = f"redis://127.0.0.1:{port}/0"
        broker = Part("redis", servers.redis_command(folder, port), {}, folder)
        database = Database(server.url)
        running.callback(database.close)
        migrate.upgrade(database)
        common = {
            "NERN_DATABASE_URL": server.url,
            "NERN_BROKER_URL": redis_url,
            "NERN_BLOB_URL": (folder / "blobs").as_uri(),
            "NERN_THREADS": "1",
            "NERN_INSPECTORS": "0",
            "NERN_API_KEYS": API_KEYS,
            **settings,
        }
        ports = [servers.free_port() for _ in range(replicas)]
        apis = [
            Part(
                f"api-{number}",
                [*NERN_MODULE, "serve", "--no-worker"],
                {**common, "NERN_PORT": str(port), "NERN_DATA_DIR": str(folder / f"api-{number}"), **_clock_of(-number)},
                folder,
            )
            for number, port in enumerate(ports)
        ]
        own = {"NERN_DATA_DIR": str(folder / "worker"), "TMPDIR": str(folder / "tmp")}
        celery = [Part(f"worker-{number}", CELERY, {**common, **own, **_clock_of(number)}, folder) for number in range(workers)]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        made = Deployment(folder, server, redis_url, broker, common, apis, celery, urls, database)
        over = Event()

        def orchestrate() -> None:
            while not over.is_set():
                for part in (broker, *apis, *celery):
                    if not made.resting.is_set():
                        part.keep()
                over.wait(RESTART_SECONDS)

        thread = Thread(target=orchestrate, name="orchestrator")
        thread.start()
        try:
            yield made
        finally:
            over.set()
            thread.join()
            for part in (*celery, *apis, broker):
                if part.pid() and part.process:
                    part.process.terminate()
            for part in (*celery, *apis, broker):
                if part.process:
                    try:
                        part.process.wait(60)
                    except subprocess.TimeoutExpired:
                        part.process.kill()
                        part.process.wait()
