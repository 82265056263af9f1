"""How long do others wait while clients send the longest bodies that are accepted, and what do the bodies take in memory?

python -m bench.bodies [--clients 12] [--quick]

Each row is a kind of body of 8 MiB. Every client sends one such body to an API process, and reads only the first line of the
answer. Meanwhile, another client asks for `GET /livez` and for `GET /v1/jobs/{id}`, one after the other: "longest" is the time
of the slowest answer in milliseconds. "seconds" is the time until all clients have the first line of their answer. "memory" is
what the process has gained when all of the bodies have been answered and no client has left.
"""

import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import httpx
import psutil

from bench.tables import Row, parser, progress, show
from service.settings import Settings
from service.store.database import Database
from tests.support import rows
from tests.support.networks import resnet8
from tests.support.processes import serving
from tests.support.stored import embedded_database, store_predictor

NBYTES = 8 * 2**20


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--clients", type=int, default=12)
    options = arguments.parse_args()
    clients = 2 if options.quick else options.clients
    results: list[Row] = []
    for what in BODIES:
        progress.print(what)
        with TemporaryDirectory(prefix="nern-bodies-") as name:
            folder = Path(name)
            with embedded_database(Settings(data_dir=folder / "data")) as database:
                predictor, job = store_predictor(database, resnet8()), _job(database)
            with serving(folder, {"NERN_INSPECTORS": "0"}, "--no-worker") as (address, process):
                path, content = BODIES[what]
                body = b"".join(content()).ljust(NBYTES)
                httpx.get(f"{address}/v1/predictors/{predictor}/kernels?layer=0", timeout=600).raise_for_status()
                measured = measure(address, path.format(id=predictor), body, clients, f"/v1/jobs/{job}", process.pid)
                results.append({"body": what} | measured)
    show(results, f"Long bodies from {clients} clients", options)


def _coordinates() -> Iterator[bytes]:
    yield b'{"coordinates":['
    yield b",".join([b"[0,0,0]"] * ((NBYTES - 20) // 8))
    yield b"]}"


def _unknown_fields() -> Iterator[bytes]:
    yield b"{"
    yield b",".join(b'"%07d":1' % number for number in range((NBYTES - 20) // 12))
    yield b"}"


def _numbers() -> Iterator[bytes]:
    yield b'{"layers":['
    yield b",".join([b"1"] * ((NBYTES - 20) // 2))
    yield b"]}"


BODIES = {
    "a million coordinates": ("/v1/predictors/{id}/kernels?format=raw", _coordinates),
    "unknown fields": ("/v1/jobs", _unknown_fields),
    "a list of numbers": ("/v1/jobs", _numbers),
}


def _job(database: Database) -> str:
    checkpoint = rows.checkpoint()
    job = rows.job(checkpoint.id)
    with database.write() as session:
        session.add(checkpoint)
        session.flush()
        session.add(job)
    return job.id


def measure(address: str, path: str, body: bytes, clients: int, job: str, process: int) -> Row:
    """Sends the body from every client, and asks for other things meanwhile."""
    left = Event()
    with httpx.Client(base_url=address, timeout=600) as client, ThreadPoolExecutor(clients) as threads:
        for asked in ("/livez", job):
            client.get(asked).raise_for_status()
        before = psutil.Process(process).memory_info().rss
        answered: list[Future[int]] = [Future() for _ in range(clients)]
        started = time.perf_counter()
        sending = [threads.submit(_send, address, path, body, future, left) for future in answered]
        took: dict[str, list[float]] = {"/livez": [], job: []}
        try:
            while not all(future.done() for future in answered):
                for asked, times in took.items():
                    at = time.perf_counter()
                    client.get(asked).raise_for_status()
                    times.append(1000 * (time.perf_counter() - at))
                time.sleep(0.01)
            seconds = time.perf_counter() - started
            memory = psutil.Process(process).memory_info().rss - before
        finally:
            left.set()
        for sent in sending:
            sent.result()
    return {
        "status": ", ".join(sorted({str(future.result()) for future in answered})),
        "seconds": seconds,
        "/livez, median": statistics.median(took["/livez"]),
        "/livez, longest": max(took["/livez"]),
        "a job, median": statistics.median(took[job]),
        "a job, longest": max(took[job]),
        "memory, MiB": memory / 2**20,
    }


def _send(address: str, path: str, body: bytes, answered: "Future[int]", left: Event) -> None:
    """A client that sends a body, tells the status of the answer, and stays without reading on."""
    url = httpx.URL(address)
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(head.encode())
        with suppress(ConnectionError):
            connection.sendall(body)
        answered.set_result(int(connection.recv(100).split()[1]))
        left.wait()


if __name__ == "__main__":
    main()
