"""The Celery application: `celery -A worker.celery worker --concurrency 1`.

A message says "look", so it is acknowledged before the work starts: the lease, not redelivery, guards a job that may take
hours. Nothing is prefetched, and each job gets a fresh process, in which alone CUDA is initialised.
"""

import os
import signal
from threading import Event
from typing import Any

from billiard import active_children
from celery import Celery
from celery.signals import worker_shutting_down

from service.jobs.wakeups import QUEUE, TASK
from service.settings import Settings
from worker.openmp import spin_little

app = Celery("nern")
# Read when Celery needs its configuration, not when this module is imported.
app.add_defaults(lambda: {"broker_url": Settings().broker_url})
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


@worker_shutting_down.connect
def _pass_on(**_: Any) -> None:
    """A warm shutdown waits for running tasks: tells them to give their jobs back."""
    for child in active_children():
        if child.pid:
            os.kill(child.pid, signal.SIGTERM)


@app.task(name=TASK)
def look(job_id: str) -> None:
    """Works on this job if it still waits, or else on another one."""
    spin_little()
    # Imported here, so that torch is loaded after the fork.
    from worker.run import Worker

    # Set here, because the pool resets its processes' handlers after they have started.
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    Worker(Settings(), stopping).work(prefer=job_id)
