"""The Celery application: `celery -A worker.celery worker` runs a worker that messages wake.

The jobs are in the database, and a message only says that there is one. So this process trains nothing. It keeps a local worker
running as its child, which looks for jobs by itself too, and passes messages on to it. Whatever happens to the broker, jobs are
worked on; without messages, a job waits until the child looks the next time.
"""

import logging
import os
import sys
import time
from contextlib import ExitStack, nullcontext
from threading import Event, Thread
from typing import Any

from celery import Celery, Task
from celery.signals import celeryd_init, setup_logging, worker_init, worker_shutdown, worker_shutting_down

from service.jobs.ends import recorder
from service.jobs.wakeups import QUEUE, TASK
from service.logs.configuration import configure
from service.logs.context import within
from service.settings import Settings
from service.supervisor import GRACE_SECONDS, Backoff, Supervisor, module_command

log = logging.getLogger(__name__)

# How long this process may take to end when its child has ended. If the broker does not answer, Celery would wait for it.
END_SECONDS = 3.0

STDOUT = 1


def _broker() -> dict[str, str]:
    if not (url := Settings.load().broker_url):
        sys.exit("NERN_BROKER_URL is not set. A worker without a broker is started by `nern worker`")
    return {"broker_url": url}


app = Celery("nern")
# The settings are read when Celery needs its configuration, not when this module is imported.
app.add_defaults(_broker)
app.conf.update(
    task_default_queue=QUEUE,
    task_acks_late=False,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    # Messages are passed on by a thread, so this process still answers Celery's control commands.
    worker_pool="threads",
    worker_concurrency=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    # Connections to a broker that has vanished end.
    broker_transport_options={"socket_timeout": 10, "socket_connect_timeout": 5, "socket_keepalive": True},
)

stopping = Event()
# A job that kills its workers must not keep them from the other jobs for long.
BACKOFF = Backoff(longest_seconds=10, long_run_seconds=30)


def _record(process: int, end: str) -> None:
    recorder(Settings())(process, end)


def _give_up(fault: str) -> None:
    """Ends this process, so that whoever runs it sees that this worker can't work. It holds no job."""
    log.critical("%s; this worker ends", fault)
    os._exit(1)


child = Supervisor(
    module_command("worker", "--until-eof"), name="training worker", backoff=BACKOFF, on_end=_record, on_fault=_give_up
)
_running = ExitStack()


@setup_logging.connect
def _keep_log(**_: Any) -> None:
    """Keeps Celery from setting up a log of its own."""


@celeryd_init.connect
def _log(**_: Any) -> None:
    """Sets the log up, before Celery warns of anything."""
    if configure().log_format == "json":
        # Celery prints a greeting there, and a farewell. Neither is JSON.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)


@worker_init.connect
def _start(**_: Any) -> None:
    """Starts the child, before Celery connects to the broker."""
    _running.enter_context(child.running(stopping))


@worker_shutting_down.connect
def _stop(**_: Any) -> None:
    """Tells the child to give its job back, as soon as this process gets its signal."""
    stopping.set()
    Thread(target=_end, name="end", daemon=True).start()


@worker_shutdown.connect
def _wait(**_: Any) -> None:
    """Waits until the child has given its job back."""
    stopping.set()
    _running.close()


def _end() -> None:
    """Ends this process if it has not ended by itself some time after its child."""
    child.wait(GRACE_SECONDS)
    time.sleep(END_SECONDS)
    log.warning("the broker does not answer; this worker ends without it")
    os._exit(0)


@app.task(name=TASK, bind=True)
def look(self: "Task[[], None]") -> None:
    """Tells the child that there is a job."""
    sent_by = (self.request.headers or {}).get("request_id")
    with within(request_id=str(sent_by)) if sent_by else nullcontext():
        log.info("a message tells of a job")
    child.nudge()
