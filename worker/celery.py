"""The Celery application, for workers that messages wake: `celery -A worker.celery worker --concurrency 1`.

A message only tells a worker to look for jobs, so a worker acknowledges the message before the work starts. If the worker dies,
its lease expires and the job returns to the queue: the broker need not deliver the message again. Workers prefetch no messages.
Each job runs in a new process, because a process can't use CUDA if its parent has initialised CUDA.
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
# The settings are read when Celery needs its configuration, not when this module is imported.
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
    """Tells the processes of running tasks to give their jobs back, because a warm shutdown waits for these tasks."""
    for child in active_children():
        if child.pid:
            os.kill(child.pid, signal.SIGTERM)


@app.task(name=TASK)
def look(job_id: str) -> None:
    """Works on this job if it is still queued, or else on the oldest queued job."""
    spin_little()
    # This import loads torch, which must happen after the fork and after `spin_little`.
    from worker.run import Worker

    # The handler is set here, because Celery resets the handlers of a process after its start.
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    Worker(Settings(), stopping).work(prefer=job_id)
