"""Waking workers. A message only says "look": the job itself is in the database, so a lost message loses nothing."""

import logging
from typing import Protocol

from celery import Celery
from kombu.exceptions import OperationalError

log = logging.getLogger(__name__)

TASK = "nern.look"
QUEUE = "nern"

# A queued job is announced again after this many seconds, and by then older announcements are worthless.
AGAIN_AFTER_SECONDS = 60


class Waker(Protocol):
    def wake(self, job_id: str) -> None:
        """Tells a worker that this job waits. Never raises: the sweep will try again."""
        ...

    def probe(self) -> None:
        """Raises if workers can't be reached."""
        ...


class Polling:
    """Local workers look for themselves."""

    def wake(self, job_id: str) -> None:
        pass

    def probe(self) -> None:
        pass


class CeleryWaker:
    """Sends a message through the broker to whichever Celery worker is free."""

    def __init__(self, broker_url: str) -> None:
        self._celery = Celery("nern", broker=broker_url)
        self._celery.conf.update(
            broker_connection_timeout=3,
            broker_transport_options={"socket_timeout": 3, "socket_connect_timeout": 3, "max_retries": 1},
            task_ignore_result=True,
        )

    def wake(self, job_id: str) -> None:
        try:
            self._celery.send_task(TASK, [job_id], queue=QUEUE, expires=AGAIN_AFTER_SECONDS, retry=False)
        except (OperationalError, OSError) as error:
            log.warning("the broker does not answer, job %s waits for the next sweep: %s", job_id, error)

    def probe(self) -> None:
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=3)


def make_waker(broker_url: str | None) -> Waker:
    return CeleryWaker(broker_url) if broker_url else Polling()
