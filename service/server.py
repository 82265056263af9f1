"""The server process of the API, which also supervises the local worker."""

import contextlib
import json
import logging
import os
import signal
import socket
from threading import Event
from types import FrameType

import uvicorn

from service.api.app import create_app
from service.http.connections import limited, room_for_connections
from service.jobs.ends import recorder
from service.metrics.exposition import metrics_served
from service.metrics.stored import DatabaseMetrics
from service.settings import Settings
from service.supervisor import Supervisor, module_command
from service.tracing.sending import sent

log = logging.getLogger(__name__)

# How long a server that is stopping waits for requests in flight.
GRACE_SECONDS = 20


# Connections that may wait until they are accepted, and how many are accepted in one round of the event loop. To close one that
# is too many takes a few rounds.
WAITING_CONNECTIONS = 2048
ACCEPTED_AT_ONCE = 32


class Server(uvicorn.Server):
    """A uvicorn server that sets `stopping` when a signal asks it to stop.

    Event streams end when `stopping` is set. Otherwise the server would wait for their clients.
    """

    def __init__(self, config: uvicorn.Config, stopping: Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # asyncio accepts as many connections at once as the backlog that it is given. They could take the last descriptors
        # before any is closed, and each accept() without a descriptor is a traceback in the log.
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(WAITING_CONNECTIONS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping.set()
        super().handle_exit(sig, frame)


def serve(settings: Settings, *, with_worker: bool, as_json: bool) -> None:
    """Answers requests until SIGTERM or SIGINT arrives. Prints the address as soon as clients can connect."""
    stopping = Event()
    worker = _worker(settings) if with_worker else None
    app = create_app(settings, stopping=stopping, probes={"worker": worker.probe} if worker else None)
    protocol = limited(room_for_connections(settings.max_connections))
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        backlog=ACCEPTED_AT_ONCE,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    with (
        sent("nern-api"),
        metrics_served(settings, DatabaseMetrics(app.state.context.whole_database)),
        _listen(settings.host, settings.port) as listening,
        worker.running(stopping) if worker else contextlib.nullcontext(),
    ):
        server = Server(config, stopping)
        # A signal may arrive as soon as the address is printed, before uvicorn has its own handlers. When uvicorn has ended, it
        # raises the signal that ended it once more, for the same handlers.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.handle_exit)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{listening.getsockname()[1]}"
        _tell(url, settings, as_json=as_json)
        server.run(sockets=[listening])


def _tell(url: str, settings: Settings, *, as_json: bool) -> None:
    """Prints the address, for people or as JSON. If the log is JSON, the line for people is one of the log."""
    listens = f"NeRN listens on {url} (documentation: {url}/docs)"
    if as_json or settings.log_format == "text":
        print(json.dumps({"url": url}) if as_json else listens, flush=True)
    else:
        log.info("%s", listens)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named. With it, a client waits 40 ms for each answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    # From here on, clients can connect. Their requests are answered when the application has started.
    listening.listen(WAITING_CONNECTIONS)
    return listening


def _worker(settings: Settings) -> Supervisor:
    logs = settings.data_dir / "logs"
    logs.mkdir(exist_ok=True)
    # The worker can't listen on the port of this process.
    port = {"NERN_METRICS_PORT": str(settings.metrics_port + 1)} if settings.metrics_port else {}
    return Supervisor(
        module_command("worker", "--until-eof"),
        name="worker",
        log_file=logs / "worker.log",
        environment={**os.environ, **port},
        on_end=recorder(settings),
    )
