"""Tells the database that this worker is alive, on which device, and what is wrong with its machine."""

import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib.metadata import version
from threading import Event, Thread

import torch

from service.store import workers
from service.store.database import Away, Database, now
from service.store.tables import Json, Worker

log = logging.getLogger(__name__)

END_SECONDS = 2.0


def describe(device: torch.device) -> Json:
    """Where this process runs: host, process id, device and release."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "host": platform.node(),
        "process": os.getpid(),
        "device": str(device),
        "device_name": name,
        "release": version("nern"),
    }


@contextmanager
def announced(
    database: Database, id: str, about: Json, device: torch.device, fault: Callable[[], str | None]
) -> Iterator[None]:
    """A block in which a thread keeps the row of a worker fresh. `fault` says what is wrong with its machine."""
    done, started = Event(), time.monotonic()

    def write() -> None:
        free = free_memory(device)
        with database.write() as session:
            seen_at = now(session)
            started_at = seen_at - timedelta(seconds=time.monotonic() - started)
            workers.write(
                session,
                Worker(
                    id=id,
                    about=about,
                    free_memory=free,
                    fault=fault(),
                    ended=None,
                    started_at=started_at,
                    seen_at=seen_at,
                ),
            )

    def write_forever() -> None:
        while True:
            try:
                write()
            except Exception:  # for example, the database does not answer; the worker goes on
                log.warning("the row of this worker could not be written", exc_info=True)
            if done.wait(workers.WRITTEN_SECONDS):
                return

    thread = Thread(target=write_forever, name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(END_SECONDS)
        with suppress(Away), database.write() as session:
            workers.remove(session, id)


def free_memory(device: torch.device) -> int:
    """Free memory in bytes: of the GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
