"""The sweep: finds jobs whose worker has gone silent."""

import asyncio
import logging

from starlette.concurrency import run_in_threadpool

from service.metrics.counted import LEASE_EXPIRIES
from service.settings import Settings
from service.store import jobs
from service.store.database import Database, now

log = logging.getLogger(__name__)


def sweep(database: Database, settings: Settings) -> None:
    """Sweeps once. Any number of processes may sweep at the same time."""
    with database.write() as session:
        swept = jobs.sweep(session, now=now(session), max_attempts=settings.max_attempts)
    for state in swept:
        LEASE_EXPIRIES.labels(state).inc()


async def sweep_forever(database: Database, settings: Settings) -> None:
    """Sweeps every `settings.sweep_seconds` until the task is cancelled. Goes on after a sweep that failed.

    When the database answers again after it did not, leases may have expired because no worker could extend them. So the first
    sweep after a failure, and the first one of this process, comes after the time of a lease, in which workers extend theirs.
    """
    await asyncio.sleep(settings.lease_seconds)
    while True:
        pause = settings.sweep_seconds
        try:
            await run_in_threadpool(lambda: sweep(database, settings))
        except Exception:  # for example, the database does not answer; the service must go on until it does
            log.exception("the sweep failed; the next one is in %g s", pause)
            pause = await _until_it_answers(database, settings)
        await asyncio.sleep(pause)


async def _until_it_answers(database: Database, settings: Settings) -> float:
    """Waits until the database answers. Returns how long to wait before the next sweep."""
    while True:
        await asyncio.sleep(settings.sweep_seconds)
        try:
            await run_in_threadpool(database.probe)
        except Exception:
            log.warning("the database does not answer", exc_info=True)
        else:
            return settings.lease_seconds
