"""The sweep: finds jobs whose worker has gone silent, and jobs for which a wake-up was lost."""

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

# Busy workers take no messages, so a long queue must not be announced as a whole again and again.
ANNOUNCED_JOBS = 4


def sweep(database: Database, waker: Waker, settings: Settings, *, now: datetime) -> None:
    """Once. Safe to run in any number of processes at any time."""
    with database.write() as session:
        jobs.sweep(session, now=now, max_attempts=settings.max_attempts)
        waiting = jobs.to_wake(session, now=now, again_after=timedelta(seconds=AGAIN_AFTER_SECONDS), limit=ANNOUNCED_JOBS)
    for job_id in waiting:
        waker.wake(job_id)


async def sweep_forever(database: Database, waker: Waker, settings: Settings, clock: Clock) -> None:
    """Until cancelled. A sweep that fails is tried again."""
    while True:
        try:
            await run_in_threadpool(lambda: sweep(database, waker, settings, now=clock()))
        except Exception:  # the database may be away for a while; the service must outlive that
            log.exception("the sweep failed; it will be tried again")
        await asyncio.sleep(settings.sweep_seconds)
