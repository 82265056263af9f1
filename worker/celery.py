"""The Celery application: `celery -A worker.celery worker --concurrency 1`.

A message says "look", so it is acknowledged before the work starts: the lease, not redelivery, guards a job that may take
hours. Nothing is prefetched, and each job gets a fresh process, in which alone CUDA is initialised.
"""

import os
import signal
from threading import Event
from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_shutting_down
from celery.utils.log import get_task_logger

from service.settings import Settings
from service.wake import QUEUE, TASK

log = get_task_logger(__name__)

app = Celery("nern", broker=Settings().broker_url)
app.conf.update(
    task_default_queue=QUEUE,
    task_acks_late=False,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_max_tasks_per_child=1,
    worker_concurrency=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)

stopping = Event()


@worker_process_init.connect
def _stop_on_sigterm(**_: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())


@worker_shutting_down.connect
def _pass_on(**_: Any) -> None:
    """A warm shutdown waits for running tasks: tells them to give their job back."""
    for child in app_children():
        os.kill(child, signal.SIGTERM)


@app.task(name=TASK)
def look(job_id: str) -> None:
    """Works on this job if it still waits, or else on another one."""
    # Imported here, so that torch is loaded after the fork.
    from worker.run import Worker

    Worker(Settings(), stopping).work(prefer=job_id)


def app_children() -> list[int]:
    """Processes of the pool."""
    from multiprocessing import active_children

    return [child.pid for child in active_children() if child.pid]
