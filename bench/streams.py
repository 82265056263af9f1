"""What do many event streams cost? A thousand clients follow jobs on one API replica, while others ask for a job.

python -m bench.streams [--streams 1000] [--jobs 10] [--seconds 20] [--quick]

The replica is a process with PostgreSQL. Each job has an event a second. "event" is the time from the transaction that records
an event to the arrival at a client, "GET" that of `GET /v1/jobs/{id}`, asked for one after the other meanwhile. The first row
is without streams. "memory" is that of the process, and "threads" counts its threads.
"""

import argparse
import asyncio
import statistics
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx
import psutil

from bench.tables import Row, parser, progress, show
from service.store import jobs, migrate
from service.store.database import Database
from service.store.jobs import Lease
from tests.support import rows, servers
from tests.support.processes import serving

EVENT_SECONDS = 1.0

PROGRESS = {"phase": "reconstruction", "step": 1, "steps": 100, "fraction": 0.01, "steps_per_second": 1.0}


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--streams", type=int, default=1000)
    arguments.add_argument("--jobs", type=int, default=10)
    arguments.add_argument("--seconds", type=float, default=20.0)
    options = arguments.parse_args()
    if options.quick:
        options.streams, options.seconds = 100, 5.0
    results: list[Row] = []
    with TemporaryDirectory(prefix="nern-streams-") as folder, servers.own_postgres(Path(folder) / "postgres") as url:
        database = Database(url)
        migrate.upgrade(database)
        leases = [_running_job(database) for _ in range(options.jobs)]
        settings = {"NERN_DATABASE_URL": url, "NERN_INSPECTORS": "0"}
        with serving(Path(folder), settings, "--no-worker") as (address, process):
            for streams in (0, options.streams):
                progress.print(f"{streams} streams")
                measured = asyncio.run(measure(address, database, leases, streams, options))
                state = psutil.Process(process.pid)
                memory = state.memory_info().rss / 2**20
                results.append({"streams": streams, **measured, "memory, MiB": memory, "threads": state.num_threads()})
        database.close()
    show(results, "Event streams: milliseconds", options)


def _running_job(database: Database) -> Lease:
    checkpoint = rows.checkpoint()
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        jobs.add(session, rows.job(checkpoint.id, architecture=None))
        lease = jobs.claim(session, holder="worker", now=datetime.now(UTC), lease=timedelta(days=1))
    assert lease is not None
    return lease


async def measure(
    address: str, database: Database, leases: list[Lease], streams: int, options: argparse.Namespace
) -> dict[str, float | None]:
    """Milliseconds: of events on their way, and of requests for a job."""
    made: dict[tuple[str, int], float] = {}
    arrived: list[tuple[str, int, float]] = []
    following = [
        asyncio.create_task(_follow(address, leases[number % len(leases)].job_id, arrived)) for number in range(streams)
    ]
    # Every job has two events from the start. Each stream brings both when it is open.
    while sum(number == 2 for _, number, _ in arrived) < streams:
        await asyncio.sleep(0.1)
    reporting = asyncio.create_task(_report(database, leases, made))
    took: list[float] = []
    ends = time.monotonic() + options.seconds
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        while time.monotonic() < ends:
            started = time.perf_counter()
            (await client.get(f"/v1/jobs/{leases[0].job_id}")).raise_for_status()
            took.append(time.perf_counter() - started)
            await asyncio.sleep(0.02)
    for task in (reporting, *following):
        task.cancel()
    await asyncio.gather(reporting, *following, return_exceptions=True)
    lags = [1000 * (at - made[job, number]) for job, number, at in arrived if (job, number) in made]
    return {
        "events": len(lags),
        "event, median": statistics.median(lags) if lags else None,
        "event, p99": _percentile(lags) if lags else None,
        "GET, median": 1000 * statistics.median(took),
        "GET, p99": 1000 * _percentile(took),
    }


def _percentile(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


async def _follow(address: str, job_id: str, arrived: list[tuple[str, int, float]]) -> None:
    """A client that follows a job, and notes the time at which each event arrives."""
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    request = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n\r\n"
    writer.write(request.encode())
    try:
        while line := await reader.readline():
            if line.startswith(b"id: "):
                arrived.append((job_id, int(line[4:]), time.time()))
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _report(database: Database, leases: list[Lease], made: dict[tuple[str, int], float]) -> None:
    """Makes an event of each job every EVENT_SECONDS."""

    def report(lease: Lease) -> tuple[int, float]:
        with database.write() as session:
            jobs.report_progress(
                session,
                lease,
                now=datetime.now(UTC),
                progress=PROGRESS,
                metrics={},
                estimated_finish_at=None,
                kinds=["progress"],
            )
            number = jobs.tail(session, lease.job_id, 1)[0].number
        return number, time.time()

    while True:
        for lease in leases:
            number, at = await asyncio.to_thread(report, lease)
            made[lease.job_id, number] = at
            await asyncio.sleep(EVENT_SECONDS / len(leases))


if __name__ == "__main__":
    main()
