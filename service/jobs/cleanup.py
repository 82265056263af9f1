"""The cleanup: removes what has been kept for long enough, and blobs that no row refers to. Storage does not only grow."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.settings import Settings
from service.store import blobs, jobs, retention, snapshots
from service.store.blobs import Blobs
from service.store.database import Database, now
from service.store.marking import mark

log = logging.getLogger(__name__)

# How often each API process cleans up. Any number of processes may do so at the same time.
CLEANUP_SECONDS = 3600.0

# Rows are removed in transactions of so many jobs.
BATCH_JOBS = 200

# A blob is stored before the row that refers to it. So a blob without a row is removed only when it is older than this.
STRAY = timedelta(days=1)


# A query for the ids of jobs that follow an id.
Find = Callable[..., list[str]]


@dataclass
class Removed:
    """What a cleanup has removed.

    events: of jobs that ended long ago.
    jobs: failed and cancelled jobs.
    snapshots: of failed and cancelled jobs, counted in jobs.
    blobs, bytes: blobs without a row, and their size.
    """

    events: int = 0
    jobs: int = 0
    snapshots: int = 0
    blobs: int = 0
    bytes: int = 0

    def __bool__(self) -> bool:
        return any(asdict(self).values())


def cleanup(database: Database, store: Blobs, settings: Settings, *, dry_run: bool = False) -> Removed:
    """Cleans up once. With `dry_run`, removes nothing and tells what it would remove.

    Raises WrongBlobStore, Away and Unreachable.
    """
    removed = Removed()
    with database.read() as session:
        moment = now(session)
    keep, write = settings, not dry_run

    def ended(find: Find, days: float) -> Iterator[list[str]]:
        """Ids of jobs that `find` finds and that ended so many days ago, in batches."""
        if days:
            yield from _batches(database, partial(find, limit=moment - timedelta(days=days), count=BATCH_JOBS))

    # Raises WrongBlobStore: what another database needs is not stray.
    mark(database, store)
    for ids in ended(retention.with_snapshots, keep.keep_snapshots_days):
        removed.snapshots += _remove(database, store, snapshots.forget, ids) if write else len(ids)
    for ids in ended(retention.with_events, keep.keep_events_days):
        with database.write() as session:
            over = retention.still_over(session, ids)
            removed.events += retention.remove_events(session, over) if write else retention.count_events(session, over)
    for ids in ended(retention.failed_jobs, keep.keep_jobs_days):
        removed.jobs += _remove(database, store, jobs.remove, ids) if write else len(ids)
    _remove_strays(database, store, moment - STRAY, removed, dry_run=dry_run)
    if removed and write:
        log.info("removed: %s", ", ".join(f"{count} {name}" for name, count in asdict(removed).items() if count))
    return removed


def _remove(database: Database, store: Blobs, change: Callable[[Session, str], None], ids: list[str]) -> int:
    """Applies a change to those of the jobs that are still over, and removes the blobs of their snapshots. Returns how many.

    A client may have retried a job meanwhile. So only the blobs are removed whose rows the change has removed.
    """
    with database.write() as session:
        over = retention.still_over(session, ids)
        rows = [row for id in over for row in snapshots.newest_first(session, id)]
        for id in over:
            change(session, id)
    for row in rows:
        store.remove(blobs.snapshot(row.job_id, row.fence, row.step))
    return len(over)


def _remove_strays(database: Database, store: Blobs, limit: datetime, removed: Removed, *, dry_run: bool) -> None:
    """Removes the blobs of folders whose id no row has, if all are older than `limit`."""
    for kind in retention.KINDS:
        folders = store.folders(kind)
        with database.read() as session:
            known = retention.known(session, kind, folders)
        for id, folder in folders.items():
            if id not in known and folder.newest < limit:
                removed.blobs += folder.count
                removed.bytes += folder.nbytes
                if not dry_run:
                    store.remove_folder(f"{kind}/{id}")


def _batches(database: Database, find: Find) -> Iterator[list[str]]:
    """Ids in batches, each after the last id of the batch before."""
    after = ""
    while True:
        with database.read() as session:
            ids = find(session, after=after)
        if not ids:
            return
        yield ids
        after = ids[-1]


async def cleanup_forever(database: Database, store: Blobs, settings: Settings) -> None:
    """Cleans up every CLEANUP_SECONDS until the task is cancelled."""
    while True:
        await asyncio.sleep(CLEANUP_SECONDS)
        try:
            await run_in_threadpool(cleanup, database, store, settings)
        except Exception:  # for example, the blob store does not answer; the service must go on
            log.exception("the cleanup failed; the next one is in %g s", CLEANUP_SECONDS)
