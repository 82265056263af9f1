"""The sweep: finds jobs whose worker has gone silent, and queued jobs whose wake-up may be lost."""

import asyncio
import logging
from datetime import datetime, timedelta

from starlette.concurrency import run_in_threadpool

from service.clock import Clock
from service.jobs.wakeups import AGAIN_AFTER_SECONDS, Waker
from service.settings import Settings
from service.store import jobs
from service.store.database import Database

log = logging.getLogger(__name__)

# A sweep sends wake-ups for at most this many jobs. Busy workers take no messages, so messages for all jobs of a long queue
# would pile up in the broker.
WOKEN_JOBS = 4


def sweep(database: Database, waker: Waker, settings: Settings, *, now: datetime) -> None:
    """Sweeps once. Any number of processes may sweep at the same time."""
    with database.write() as session:
        jobs.sweep(session, now=now, max_attempts=settings.max_attempts)
        waiting = jobs.to_wake(session, now=now, again_after=timedelta(seconds=AGAIN_AFTER_SECONDS), limit=WOKEN_JOBS)
    for job_id in waiting:
        waker.wake(job_id)


async def sweep_forever(database: Database, waker: Waker, settings: Settings, clock: Clock) -> None:
    """Sweeps every `settings.sweep_seconds` until the task is cancelled. Goes on after a sweep that failed."""
    while True:
        try:
            await run_in_threadpool(lambda: sweep(database, waker, settings, now=clock()))
        except Exception:  # for example, the database does not answer; the service must go on until it does
            log.exception("the sweep failed; the next one is in %g s", settings.sweep_seconds)
        await asyncio.sleep(settings.sweep_seconds)
