"""A worker, which looks for jobs in the database: `python -m worker`, or a child of `nern serve` or of a Celery worker.

With `--until-eof`, the worker also stops when its standard input ends. The parent holds the other end of that pipe, so the
worker stops when its parent ends, however that happens. When the parent writes a line, the worker looks for a job at once.
"""

import logging
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from threading import Event, Thread
from typing import Any

from sqlalchemy import make_url

from service.logs.configuration import configure, give_up
from service.metrics.exposition import metrics_served
from service.settings import Settings
from service.store.database import Away
from service.supervisor import TEMPORARY
from service.tracing.sending import sent
from worker.openmp import spin_little

log = logging.getLogger("worker")


def main() -> None:
    """Works on one job after the other until SIGTERM, SIGINT or the end of standard input."""
    configure()
    try:
        settings = Settings.load()
    except ValueError as error:
        give_up(f"nern worker: {error}")
    stopping, woken = Event(), Event()

    def stop(*_: Any) -> None:
        stopping.set()
        woken.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if "--until-eof" in sys.argv[1:]:
        Thread(target=_obey, args=(woken, stop), daemon=True).start()
    spin_little()
    # These imports load torch, which must happen after `spin_little`. The first optimizer would import torch._dynamo, in a job.
    import_module("torch._dynamo")
    from worker.run import NoSuchDevice, Unsound, Worker

    with ExitStack() as running:
        try:
            worker = Worker(settings, stopping)
            running.enter_context(metrics_served(settings))
        except (OSError, NoSuchDevice) as error:
            give_up(f"nern worker: {error}")
        log.info("the worker looks for jobs in %s", make_url(settings.database))
        running.enter_context(sent("nern-worker"))
        running.enter_context(worker.announced())
        while not stopping.is_set():
            woken.clear()
            try:
                idle = not worker.work()
            except Away:
                log.exception("the database does not answer; the worker tries again")
                idle = True
            except Unsound:
                log.exception("this process ends")
                sys.exit(TEMPORARY)
            if idle:
                woken.wait(settings.poll_seconds)


def _obey(woken: Event, stop: Callable[[], None]) -> None:
    """Wakes the worker at each line of standard input, and stops it at the end."""
    for _ in sys.stdin:
        woken.set()
    stop()


if __name__ == "__main__":
    main()
