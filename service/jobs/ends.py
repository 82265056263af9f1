"""How workers ended: the process that starts a worker writes it down, because a killed worker can't."""

import logging
import platform
from collections.abc import Callable

from service.settings import Settings
from service.store import workers
from service.store.database import Database

log = logging.getLogger(__name__)


def recorder(settings: Settings) -> Callable[[int, str], None]:
    """A function that writes down how the worker of a process id on this host has ended. It raises nothing."""

    def record(process: int, end: str) -> None:
        database = Database(settings.database)
        try:
            with database.write() as session:
                workers.record_end(session, host=platform.node(), process=process, end=end)
        except Exception:  # for example, the database does not answer; the job is found all the same
            log.warning("it could not be written down that the worker %d %s", process, end, exc_info=True)
        finally:
            database.close()

    return record
