"""An application in a server of this process, called over a real socket."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import httpx
import uvicorn
from fastapi import FastAPI

from tests.support.servers import free_port
from tests.support.waiting import DEADLINE_SECONDS, until


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """A block in which the application answers the requests of a client."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=5))
    thread = Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), what="the server")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_SECONDS) as client:
            yield client
    finally:
        app.state.context.stopping.set()
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
