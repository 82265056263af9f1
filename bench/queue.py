"""Does the queue stay fast when the tables are full? Claims, sweeps and lists, beside few and beside many old jobs.

python -m bench.queue [--old 1000 1000000] [--quick]

For SQLite and for PostgreSQL, and for each number of old jobs (which have ended, with ten events each): the time of a claim
with its end, of a sweep that finds nothing, of pages of lists, and of other queries. The median of --claims calls each, in
milliseconds. "growth" is the time beside the most old jobs over the time beside the fewest.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from bench.tables import Row, parser, progress, show
from service.store import jobs, migrate
from service.store.database import Database
from tests.support import rows, servers

EVENTS = 10

LEASE = timedelta(seconds=30)

# Rows of old jobs and of their events. The ids are those of UUIDs, in ascending order, before all ids of new jobs.
NUMBERS = {
    "postgresql": "SELECT number FROM generate_series(1, :count) AS number",
    "sqlite": "WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n WHERE number < :count) "
    "SELECT number FROM n",
}
ID = {
    "postgresql": "'00000000-0000-7000-8000-' || lpad(number::text, 12, '0')",
    "sqlite": "'00000000-0000-7000-8000-' || printf('%012d', number)",
}
JOBS = """
INSERT INTO job (id, state, checkpoint_id, config, notes, attempt, fence, cancel_requested, created_at, finished_at, claimed_at)
SELECT {id}, CASE number % 3 WHEN 0 THEN 'failed' WHEN 1 THEN 'cancelled' ELSE 'succeeded' END, :checkpoint, '{{}}', '[]', 1, 1,
       {false}, :then, :then, :then
FROM ({numbers}) AS numbers
"""
JOB_EVENTS = """
INSERT INTO job_event (job_id, number, kind, data, created_at)
SELECT {id}, event, 'progress', '{{}}', :then FROM ({numbers}) AS numbers, ({events}) AS events
"""


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--old", type=int, nargs="+", default=[1000, 1_000_000], help="old jobs in the table")
    arguments.add_argument("--claims", type=int, default=300, help="calls of each kind")
    options = arguments.parse_args()
    if options.quick:
        options.old, options.claims = [1000, 50_000], 100
    results: list[Row] = []
    for name in ("sqlite", "postgresql"):
        measured = []
        for old in sorted(options.old):
            with TemporaryDirectory(prefix="nern-queue-") as folder, database(name, Path(folder)) as made:
                progress.print(f"{name}: {old} old jobs")
                fill(made, old)
                measured.append(measure(made, options.claims))
            results.append({"database": name, "old jobs": old, "events": old * EVENTS, **measured[-1]})
        growth = {what: measured[-1][what] / measured[0][what] for what in measured[0]}
        results.append({"database": name, "old jobs": "growth", "events": "", **growth})
    show(results, "The queue: milliseconds", options)


@contextmanager
def database(name: str, folder: Path) -> Iterator[Database]:
    """An empty, migrated database."""
    if name == "sqlite":
        made = Database(f"sqlite:///{folder / 'queue.sqlite3'}")
        migrate.upgrade(made)
        yield made
        made.close()
        return
    with servers.own_postgres(folder / "postgres") as url:
        made = Database(url)
        migrate.upgrade(made)
        yield made
        made.close()


def fill(database: Database, count: int) -> None:
    """Adds old jobs of one checkpoint, with their events."""
    name = database.engine.dialect.name
    checkpoint = rows.checkpoint(id=str(UUID(int=0)))
    with database.write() as session:
        session.add(checkpoint)
    words = {"id": ID[name], "numbers": NUMBERS[name], "false": "false" if name == "postgresql" else "0"}
    words["events"] = (
        NUMBERS[name].replace(":count", ":events").replace("number", "event").replace("n(", "e(").replace("FROM n", "FROM e")
    )
    then = datetime.now(UTC) - timedelta(days=1)
    given = {"count": count, "events": EVENTS, "checkpoint": checkpoint.id, "then": then if name == "postgresql" else str(then)}
    with database.write() as session:
        session.execute(text(JOBS.format(**words)), given)
    with database.write() as session:
        session.execute(text(JOB_EVENTS.format(**words)), given)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def measure(database: Database, calls: int) -> dict[str, float]:
    """Median milliseconds of each call, beside what is in the table."""
    new = rows.checkpoint()
    now = datetime.now(UTC)
    with database.write() as session:
        session.add(new)
        session.flush()
        for _ in range(calls + 20):
            jobs.add(session, rows.job(new.id, created_at=now))

    def claim(session: Session) -> None:
        lease = jobs.claim(session, holder="worker", now=now, lease=LEASE)
        assert lease is not None
        jobs.finish(session, lease, "failed", now=now)

    calls_of: dict[str, Callable[[Session], object]] = {
        "claim and end": claim,
        "sweep": lambda session: jobs.sweep(session, now=now, max_attempts=3),
        "list": lambda session: jobs.page(session, state=None, checkpoint_id=None, limit=50, cursor=None),
        "list of a state": lambda session: jobs.page(session, state="queued", checkpoint_id=None, limit=50, cursor=None),
        "jobs of a checkpoint": lambda session: jobs.page(session, state=None, checkpoint_id=new.id, limit=50, cursor=None),
        "use of a checkpoint": lambda session: jobs.uses(session, checkpoint_id=new.id),
        "queue": jobs.queue,
    }
    return {name: 1000 * statistics.median(timed(database, call, calls)) for name, call in calls_of.items()}


def timed(database: Database, call: Callable[[Session], object], calls: int) -> list[float]:
    """The seconds of each call, in a transaction of its own."""
    seconds = []
    for _ in range(calls):
        started = time.perf_counter()
        with database.write() as session:
            call(session)
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
