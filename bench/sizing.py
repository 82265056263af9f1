"""How much memory does each process need, and how many bytes does the database need for each thing?

python -m bench.sizing [--images 10000] [--steps 100] [--quick]

As deployed: PostgreSQL, Redis, one API replica and one Celery worker as processes. A client uploads a ResNet-20 with random
weights and --images images of 32 x 32 pixels, and follows a job of --steps steps; then it fetches all weights. "at rest" is the
resident memory before, of which "own" is not shared with other processes; "most" is the largest resident memory until the end.
The bytes of the database are those of tables with their indexes, after the rows of that job were copied --copies times; "each"
is the mean. The last row is the size of the artefact itself.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
from sqlalchemy import text

from bench.tables import Row, parser, show
from nern.architectures.cifar import ResNet
from service.store import migrate
from service.store.database import Database
from tests.support import servers
from tests.support.networks import dataset_file, saved
from tests.support.processes import celery_worker, serving
from tests.support.waiting import until

# A copy of each row of a table, with ids of its own. `{columns}` are the columns without the id.
COPY = "INSERT INTO {table} ({id}, {columns}) SELECT {new}, {columns} FROM {table}, generate_series(1, :copies) AS copy"
NEW_ID = "'00000000-0000-7000-8000-' || lpad(copy::text, 12, '0')"

NO_MEMORY = {"at rest": None, "own": None, "most": None}

# The tables in the order of their references, and the column that a copy has another value in.
TABLES = {"job": "id", "job_event": "job_id", "predictor": "id", "predictor_chunk": "predictor_id"}


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--images", type=int, default=10_000)
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument("--copies", type=int, default=200)
    options = arguments.parse_args()
    if options.quick:
        options.images = 1000
    with TemporaryDirectory(prefix="nern-sizing-") as name:
        folder = Path(name)
        with servers.own_postgres(folder / "postgres") as url, servers.own_redis(folder / "redis") as broker:
            database = Database(url)
            migrate.upgrade(database)
            settings = {"NERN_DATABASE_URL": url, "NERN_BROKER_URL": broker, "NERN_THREADS": str(options.threads)}
            rows = list(processes(folder, settings, options))
            rows += things(database, options.copies)
            database.close()
    show(rows, "Memory in MiB, the database in bytes", options)


def processes(folder: Path, settings: dict[str, str], options: argparse.Namespace) -> Iterator[Row]:
    """The memory of each process, at rest and at most."""
    with (
        celery_worker(folder, settings) as worker,
        serving(folder, settings, "--no-worker") as (address, api),
        httpx.Client(base_url=address, timeout=600) as client,
    ):
        until(lambda: client.get("/readyz").status_code == 200, what="readiness")
        until(lambda: client.get("/v1/workers").json(), what="a worker")
        [training] = psutil.Process(worker.pid).children()
        inspecting, *_ = psutil.Process(api.pid).children()
        found = {
            "API": psutil.Process(api.pid),
            "waiting for an upload": inspecting,
            "Celery worker": psutil.Process(worker.pid),
            "training worker": training,
        }
        at_rest = {name: process.memory_full_info() for name, process in found.items()}
        work(client, options)
        for name, process in found.items():
            # The process that took the upload has ended.
            most = None if process == inspecting else peak(process)
            memory = {"at rest": at_rest[name].rss / 2**20, "own": at_rest[name].uss / 2**20, "most": most}
            yield {"what": name, **memory, "each": None}


def work(client: httpx.Client, options: argparse.Namespace) -> None:
    """The main job: two uploads, a training, all weights."""
    checkpoint = _ok(client.post("/v1/checkpoints", files={"file": ("net.pt", saved(ResNet(20).state_dict()))}))
    dataset = _ok(client.post("/v1/datasets", files={"file": dataset_file(options.images, size=32)}))
    body = {"checkpoint_id": checkpoint["id"], "data": {"dataset_id": dataset["id"]}, "steps": options.steps}
    job = _ok(client.post("/v1/jobs", json=body))
    until(lambda: _ok(client.get(f"/v1/jobs/{job['id']}"))["finished_at"], what="the job")
    predictor = _ok(client.get(f"/v1/jobs/{job['id']}"))["predictor_id"]
    client.get(f"/v1/predictors/{predictor}/weights").raise_for_status()


def things(database: Database, copies: int) -> Iterator[Row]:
    """The bytes of the database for each job, event and predictor, and for each byte of an artefact."""
    with database.write() as session:
        session.execute(text("ALTER TABLE predictor DROP CONSTRAINT predictor_job_id_key"))
        for table, id in TABLES.items():
            columns = session.scalars(
                text("SELECT column_name FROM information_schema.columns WHERE table_name = :table"), {"table": table}
            )
            others = ", ".join(f'"{name}"' for name in columns if name != id)
            session.execute(text(COPY.format(table=table, id=id, columns=others, new=NEW_ID)), {"copies": copies})
    with database.read() as session:
        for table in TABLES:
            size, count = session.execute(text(f"SELECT pg_total_relation_size('{table}'), count(*) FROM {table}")).one()  # noqa: S608
            yield {"what": f"{table}, {count // (copies + 1)} for a job", **NO_MEMORY, "each": size / count}
        artefact = session.scalar(text("SELECT min(size) FROM predictor"))
        yield {"what": "artefact", **NO_MEMORY, "each": float(artefact or 0)}


def peak(process: psutil.Process) -> float:
    """The most resident memory that a process has had, in MiB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    raise AssertionError("/proc has no VmHWM")


def _ok(answer: httpx.Response) -> Any:
    answer.raise_for_status()
    return answer.json()


if __name__ == "__main__":
    main()
