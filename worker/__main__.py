"""A local worker, which polls the database for jobs: `python -m worker`, or a child process of `nern serve`.

With `--until-eof`, the worker also stops when its standard input ends. The parent holds the other end of that pipe, so the
worker stops when its parent ends, however that happens.
"""

import logging
import signal
import sys
from threading import Event, Thread

from sqlalchemy import make_url

from service.settings import Settings
from service.store.database import Away
from worker.openmp import spin_little

log = logging.getLogger("worker")


def main() -> None:
    """Works on one job after the other until SIGTERM, SIGINT or the end of standard input."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings, stopping = Settings(), Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    if "--until-eof" in sys.argv[1:]:
        Thread(target=_stop_at_eof, args=(stopping,), daemon=True).start()
    spin_little()
    # This import loads torch, which must happen after `spin_little`.
    from worker.run import Worker

    try:
        worker = Worker(settings, stopping)
    except OSError as error:
        sys.exit(f"nern worker: {error}")
    log.info("the worker looks for jobs in %s", make_url(settings.database))
    while not stopping.is_set():
        try:
            idle = not worker.work()
        except Away:
            log.exception("the database does not answer; the worker tries again")
            idle = True
        if idle:
            stopping.wait(settings.poll_seconds)


def _stop_at_eof(stopping: Event) -> None:
    sys.stdin.read()
    stopping.set()


if __name__ == "__main__":
    main()
