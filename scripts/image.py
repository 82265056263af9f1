"""Runs the image as the manifests of Kubernetes say, through a whole job, and measures its size and its starts.

PostgreSQL and Redis are real servers, on this machine. Instead of an object store, API and worker share a volume.
"""

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import safetensors.torch
from rich.console import Console
from rich.table import Table

from scripts.containers import Container, Containers, Failure
from tests.support import servers
from tests.support.calls import DATASET, NETWORK
from tests.support.networks import resnet8

# The job is short: what is tried is the image, not the training.
JOB = {"steps": 60, "ratio": 0.3}

# So many packages are shown one by one.
SHOWN_PACKAGES = 12


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/image check", description=__doc__)
    parser.add_argument("--engine", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--image", default="nern", help="name of the image (default: nern)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    try:
        with place(options.engine, options.image) as containers:
            results = check(containers)
    except (Failure, httpx.HTTPError) as failure:
        sys.exit(f"The image fails: {failure}")
    if options.json:
        print(json.dumps(results))
    else:
        show(results)


@contextmanager
def place(engine: str, image: str) -> Iterator[Containers]:
    """A block in which containers find PostgreSQL, Redis and a volume."""
    with (
        tempfile.TemporaryDirectory(prefix="nern-image-") as name,
        servers.own_postgres(Path(name) / "postgres") as database,
        servers.own_redis(Path(name) / "redis") as broker,
    ):
        mounts = []
        if sockets := parse_qs(urlsplit(database).query).get("host"):
            # The socket alone, because nobody else may look into the folder of PostgreSQL.
            mounts = [f"{sockets[0]}/.s.PGSQL.5432:/postgres/.s.PGSQL.5432"]
            database = "postgresql://postgres@/postgres?host=/postgres"
        values = {"database-url": database, "broker-url": broker, "api-keys": f"admin:{secrets.token_hex(16)}"}
        settings = {"NERN_PORT": str(servers.free_port()), "NERN_BLOB_URL": "file:///data/blobs"}
        containers = Containers(engine, image, Path(name), values, settings, mounts)
        with containers.volume():
            yield containers


def check(containers: Containers) -> dict[str, Any]:
    """The way from the migration to the end of all processes. Raises Failure."""
    contents, seconds, clock = inventory(containers), {}, Clock()
    with containers.running("migrate") as migration:
        migration.end()
    seconds["migration"] = clock.lap()
    key = containers.secrets["api-keys"].removeprefix("admin:")
    url = f"http://127.0.0.1:{containers.settings['NERN_PORT']}"
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        clock.lap()
        with containers.running("api") as api:
            api.until(lambda: listed(client, "/readyz"))
            seconds["api_start"] = clock.lap()
            with containers.running("worker") as worker:
                worker.until(lambda: listed(client, "/v1/workers"))
                seconds["worker_start"] = clock.lap()
                whole_job(client, worker)
                seconds["job"] = clock.lap()
                worker.stop()
                seconds["worker_end"] = clock.lap()
            api.stop()
            seconds["api_end"] = clock.lap()
    return {"image": contents, "seconds": seconds}


class Clock:
    """Measures one part after the other."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap."""
        started, self._started = self._started, time.monotonic()
        return self._started - started


def inventory(containers: Containers) -> dict[str, Any]:
    """What the image consists of. Raises Failure if its process may do more than it should."""
    program = (Path(__file__).parent / "inventory.py").read_bytes()
    ended = subprocess.run(
        containers.command("api", ["python3", "-I", "-"]), input=program, stdout=subprocess.PIPE, check=False
    )
    if ended.returncode:
        raise Failure(f"it does not start (status {ended.returncode}); scripts/image build makes it")
    found: dict[str, Any] = json.loads(ended.stdout)
    if (found["user"], found["capabilities"], found["writable"]) != (10001, 0, []):
        raise Failure(f"user {found['user']} has capabilities {found['capabilities']:x}, and can write to {found['writable']}")
    return found


def whole_job(client: httpx.Client, worker: Container) -> None:
    """Uploads a network and images, trains a predictor, and fetches the rebuilt network. Raises Failure."""
    checkpoint = answer(client.post("/v1/checkpoints", files={"file": ("net.pt", NETWORK)})).json()
    dataset = answer(client.post("/v1/datasets", files={"file": ("images.npz", DATASET)})).json()
    wanted = {"checkpoint_id": checkpoint["id"], "data": {"dataset_id": dataset["id"]}, **JOB}
    path = f"/v1/jobs/{answer(client.post('/v1/jobs', json=wanted)).json()['id']}"
    worker.until(lambda: answer(client.get(path)).json()["state"] not in ("queued", "running"))
    job = answer(client.get(path)).json()
    if job["state"] != "succeeded":
        raise Failure(f"the job has {job['state']}: {job['error']}")
    rebuilt = safetensors.torch.load(answer(client.get(f"/v1/predictors/{job['predictor_id']}/weights")).content)
    if {name: tensor.shape for name, tensor in rebuilt.items()} != {name: tensor.shape for name, tensor in resnet8().items()}:
        raise Failure("the rebuilt network has other tensors than the network that was uploaded")


def listed(client: httpx.Client, path: str) -> Any:
    """What a route lists, or None if it does not answer with status 200."""
    try:
        response = client.get(path)
    except httpx.TransportError:
        return None
    return response.json() if response.status_code == 200 else None


def answer(response: httpx.Response) -> httpx.Response:
    """The response. Raises Failure if it is an error."""
    if response.is_error:
        raise Failure(f"{response.request.method} {response.request.url.path}: {response.status_code} {response.text}")
    return response


def show(results: dict[str, Any]) -> None:
    """Prints the results as two tables."""
    contents, seconds = results["image"], results["seconds"]
    sizes = Table("package", "MB", title="What is in the image")
    packages = list(contents["packages"].items())
    for package, size in packages[:SHOWN_PACKAGES]:
        sizes.add_row(package, f"{size / 1e6:,.0f}")
    others = packages[SHOWN_PACKAGES:]
    sizes.add_row(f"{len(others)} others", f"{sum(size for _, size in others) / 1e6:,.0f}")
    sizes.add_section()
    sizes.add_row("all", f"{contents['size'] / 1e6:,.0f}")
    sizes.add_row("of these, for CUDA alone", f"{contents['cuda'] / 1e6:,.0f}")
    times = Table("what", "seconds", title="As user 10001, with a read-only root file system")
    for name, what in {
        "migration": "migration of an empty database",
        "api_start": "API, from start to ready",
        "worker_start": "worker, from start to listed",
        "job": f"uploads, a job of {JOB['steps']} steps, the rebuilt network",
        "worker_end": "worker, from SIGTERM to end",
        "api_end": "API, from SIGTERM to end",
    }.items():
        times.add_row(what, f"{seconds[name]:.1f}")
    console = Console()
    console.print(sizes)
    console.print(times)


if __name__ == "__main__":
    main()
