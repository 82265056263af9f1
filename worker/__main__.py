"""A local worker: looks for jobs again and again. `python -m worker`, or as a child of `nern serve`.

With `--until-eof` it also stops when its standard input ends, which is when the process that holds the other end does.
"""

import logging
import signal
import sys
from threading import Event, Thread

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from service.settings import Settings
from worker.openmp import spin_little

log = logging.getLogger("worker")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings, stopping = Settings(), Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    if "--until-eof" in sys.argv[1:]:
        Thread(target=_stop_at_eof, args=(stopping,), daemon=True).start()
    spin_little()
    # Imported here, because it loads torch.
    from worker.run import Worker

    worker = Worker(settings, stopping)
    log.info("looking for jobs in %s", make_url(settings.database))
    while not stopping.is_set():
        try:
            idle = not worker.work()
        except SQLAlchemyError:
            log.exception("the database does not answer; trying again")
            idle = True
        if idle:
            stopping.wait(settings.poll_seconds)


def _stop_at_eof(stopping: Event) -> None:
    sys.stdin.read()
    stopping.set()


if __name__ == "__main__":
    main()
