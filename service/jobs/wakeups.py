"""Wake-ups: messages that tell workers to look for jobs.

The job itself is in the database, so a lost message loses nothing: the sweep repeats it.
"""

import logging
from typing import Protocol

from celery import Celery
from kombu.exceptions import OperationalError

log = logging.getLogger(__name__)

TASK = "nern.look"
QUEUE = "nern"

# A wake-up for a job that is still queued is repeated after this many seconds. The broker drops the earlier message by then.
AGAIN_AFTER_SECONDS = 60


class Waker(Protocol):
    """A way to tell workers to look for jobs."""

    def wake(self, job_id: str) -> None:
        """Tells a worker that this job is queued. Raises nothing, because the sweep repeats wake-ups that were lost."""
        ...

    def probe(self) -> None:
        """Raises an exception if messages can't reach workers."""
        ...


class Polling:
    """For local workers, which look for jobs without messages."""

    def wake(self, job_id: str) -> None:
        pass

    def probe(self) -> None:
        pass


class CeleryWaker:
    """Sends messages through the broker. A Celery worker that is free takes a message."""

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
            log.warning("the broker does not answer, so job %s waits until a sweep wakes a worker: %s", job_id, error)

    def probe(self) -> None:
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=3)


def make_waker(broker_url: str | None) -> Waker:
    """The waker for a setting `NERN_BROKER_URL`."""
    return CeleryWaker(broker_url) if broker_url else Polling()
