"""Wake-ups: messages that tell workers to look for jobs.

The job itself is in the database, and workers look there by themselves too. So a lost message costs a moment and nothing else.
"""

import logging
from queue import Full, Queue
from threading import Thread
from typing import Protocol

from celery import Celery
from kombu.exceptions import OperationalError

from service.logs.context import about
from service.tracing.links import traceparent

log = logging.getLogger(__name__)

TASK = "nern.look"
QUEUE = "nern"

# Wake-ups that wait for the broker. Any more are dropped, because one wakes a worker as well as many.
WAITING_WAKEUPS = 16


Headers = dict[str, str]


class Waker(Protocol):
    """A way to tell workers to look for jobs."""

    def wake(self) -> None:
        """Tells a worker that there is a queued job. Returns at once, and raises nothing."""
        ...

    def probe(self) -> None:
        """Raises an exception if messages can't reach workers."""
        ...


class Polling:
    """For local workers, which look for jobs without messages."""

    def wake(self) -> None:
        pass

    def probe(self) -> None:
        pass


class CeleryWaker:
    """Sends messages through the broker, in a thread. A Celery worker takes a message.

    The headers of a message have the id of the request that it comes from, and the span of the request if there is one.
    """

    def __init__(self, broker_url: str) -> None:
        self._celery = Celery("nern", broker=broker_url)
        self._celery.conf.update(
            broker_connection_timeout=3,
            broker_transport_options={"socket_timeout": 3, "socket_connect_timeout": 3, "max_retries": 1},
            task_ignore_result=True,
        )
        self._waiting: Queue[Headers] = Queue(WAITING_WAKEUPS)
        Thread(target=self._send_forever, name="wake-ups", daemon=True).start()

    def wake(self) -> None:
        try:
            self._waiting.put_nowait(_headers())
        except Full:
            log.warning("the broker is slow, so a wake-up is dropped; workers find the job when they look by themselves")

    def probe(self) -> None:
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=3)

    def _send(self, headers: Headers) -> None:
        try:
            self._celery.send_task(TASK, queue=QUEUE, retry=False, headers=headers)
        except (OperationalError, OSError) as error:
            log.warning("the broker does not answer; workers find the job when they look by themselves: %s", error)

    def _send_forever(self) -> None:
        while True:
            self._send(self._waiting.get())


def make_waker(broker_url: str | None) -> Waker:
    """The waker for a setting `NERN_BROKER_URL`."""
    return CeleryWaker(broker_url) if broker_url else Polling()


def _headers() -> Headers:
    found = {"request_id": about().get("request_id"), "traceparent": traceparent()}
    return {name: str(value) for name, value in found.items() if value}
