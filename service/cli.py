"""The command line: `nern serve`, `nern worker`, `nern migrate`."""

import argparse
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from threading import Event, Thread
from types import FrameType

import uvicorn
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from service.api.keys import is_loopback, parse_keys
from service.settings import Settings
from service.store import migrate
from service.store.database import Database

log = logging.getLogger("service")

# How long a stopping server waits for requests in flight, and for its worker to finish its step.
GRACE_SECONDS = 20

# A worker that dies is started again after so many seconds.
RESTART_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="nern", description="Neural representations of convolutional networks, as a service. Settings: NERN_* variables."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the API and, unless there is a broker, a local worker")
    serve.add_argument("--no-worker", action="store_true", help="run the API alone")
    serve.add_argument("--json", action="store_true", help="print the address as JSON")
    commands.add_parser("worker", help="run a worker that polls the database")
    commands.add_parser("migrate", help="bring the database to the schema of this release")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Tells at every readiness probe what kind of database it talks to.
    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)
    try:
        settings = Settings()
        if options.command == "serve":
            _serve(settings, with_worker=not options.no_worker and not settings.broker_url, as_json=options.json)
        elif options.command == "migrate":
            _migrate(settings)
        else:
            os.execv(sys.executable, [sys.executable, "-m", "worker"])
    except ValidationError as error:
        sys.exit("\n".join(f"NERN_{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors()))
    except (ValueError, OSError, SQLAlchemyError) as error:
        sys.exit(f"nern {options.command}: {error}")


class Server(uvicorn.Server):
    """Tells endless streams to end as soon as the server is asked to stop, instead of waiting for their clients."""

    def __init__(self, config: uvicorn.Config, stopping: Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping.set()
        super().handle_exit(sig, frame)


def _serve(settings: Settings, *, with_worker: bool, as_json: bool) -> None:
    if not is_loopback(settings.host) and not parse_keys(settings.api_keys.get_secret_value()):
        raise ValueError(f"{settings.host} can be reached from outside, so API keys are needed: set NERN_API_KEYS")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if settings.database_url is None:
        _migrate(settings)
    from service.api.app import create_app  # takes seconds: nobody should wait for them to be told of a wrong setting

    app = create_app(settings)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE_SECONDS)
    stopping: Event = app.state.context.stopping
    worker = _worker(settings, stopping) if with_worker else contextlib.nullcontext()
    with _listen(settings.host, settings.port) as listening, worker:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{listening.getsockname()[1]}"
        print(json.dumps({"url": url}) if as_json else f"NeRN listens on {url} (documentation: {url}/docs)", flush=True)
        # The server raises the signal that ended it once more when it is done; by then it has had its effect.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        Server(config, stopping).run(sockets=[listening])


def _migrate(settings: Settings) -> None:
    database = Database(settings.database)
    try:
        migrate.upgrade(database)
    finally:
        database.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    # From here on clients can connect; they are answered when the application has started.
    listening.listen(2048)
    return listening


@contextlib.contextmanager
def _worker(settings: Settings, stopping: Event) -> Iterator[None]:
    """A local worker process for as long as the block runs, started again if it dies until the server is to stop.

    Its log goes to a file.
    """
    logs = settings.data_dir / "logs"
    logs.mkdir(exist_ok=True)

    def start() -> subprocess.Popen[bytes]:
        with (logs / "worker.log").open("ab") as output:
            # Its standard input ends when this process does, however that comes about.
            return subprocess.Popen(
                [sys.executable, "-m", "worker", "--until-eof"], stdin=subprocess.PIPE, stdout=output, stderr=output
            )

    process = start()

    def supervise() -> None:
        nonlocal process
        while not stopping.is_set():
            code = process.wait()
            if not stopping.wait(RESTART_SECONDS):
                log.error("the worker ended with %s (see %s); starting it again", code, logs / "worker.log")
                process = start()

    def tell() -> None:
        stopping.wait()
        # While requests in flight are still being answered: both may take a while.
        process.send_signal(signal.SIGTERM)

    for task in (supervise, tell):
        Thread(target=task, daemon=True).start()
    try:
        yield
    finally:
        stopping.set()
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
