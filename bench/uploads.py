"""How long does an upload take, and does it hold up others? The real service on a free port, files of about 1 MB.

python -m bench.uploads [--uploads 5] [--idle 10] [--quick]

One row is one service, started afresh. Half of the services are sent the first upload as soon as they are ready; all other
uploads come after `--idle` seconds, so that the service may prepare for them. While uploads run, another client asks for /livez
every 10 ms. The last column is the time that a fresh process takes to recognise the network by names and shapes, after its
imports.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import httpx
import psutil
import torch

from bench.tables import Row, parser, progress, show
from nern.architectures.cifar import ResNet

# 270,000 parameters: a file of 1.1 MB.
DEPTH = 20

POLL_SECONDS = 0.01

RECOGNITION = """
import json, sys, time
from nern import architectures
shapes = {name: tuple(shape) for name, shape in json.load(sys.stdin).items()}
started = time.perf_counter()
assert architectures.recognise(shapes) == ["cifar/resnet20"]
print(time.perf_counter() - started)
"""


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--uploads", type=int, default=5, help="a service, beside the first one")
    arguments.add_argument("--idle", type=float, default=10, help="seconds before an upload")
    arguments.add_argument("--services", type=int, default=5, help="of each half")
    options = arguments.parse_args()
    if options.quick:
        options.services, options.uploads = 2, 2
    rows: list[Row] = []
    for idle in (0.0, options.idle):
        measured = []
        for number in range(1, options.services + 1):
            measured.append({"service": f"{number}", "idle": idle, **measure(options, idle)})
            progress.print(measured[-1])
        least = {name: min(row[name] for row in measured) for name in measured[0]}
        rows += [*measured, least | {"service": "least"}]
    show(rows, "Uploads of 1.1 MB, seconds", options)


def measure(options: argparse.Namespace, idle: float) -> Row:
    """What one service takes, in seconds, whose first upload is sent after `idle` seconds."""
    with TemporaryDirectory() as folder, serving(Path(folder)) as (url, number):
        api = psutil.Process(number)
        with httpx.Client(base_url=url, timeout=300) as client:
            while client.get("/readyz").status_code != 200:
                time.sleep(POLL_SECONDS)
            time.sleep(idle)
            with longest_delay(url) as first_delays:
                first, first_processor = upload(client, api, seed=options.seed)
            later = []
            with longest_delay(url) as later_delays:
                for number in range(1, options.uploads + 1):
                    time.sleep(options.idle)
                    later.append(upload(client, api, seed=options.seed + number))
    return {
        "first upload": first,
        "processor": first_processor,
        "/livez": max(first_delays),
        "later uploads": statistics.median(wall for wall, _ in later),
        "their processor": statistics.median(processor for _, processor in later),
        "their /livez": max(later_delays),
        "recognition": recognition(),
    }


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, int]]:
    """The API alone, as `nern serve` starts it: its address and the number of its process."""
    command = [sys.executable, "-m", "service.cli", "serve", "--json", "--no-worker"]
    environment = {**os.environ, "NERN_PORT": "0", "NERN_DATA_DIR": str(folder)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"], process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def upload(client: httpx.Client, api: psutil.Process, *, seed: int) -> tuple[float, float]:
    """Seconds until the answer to an upload of a network of its own, and processor seconds of the API process."""
    torch.manual_seed(seed)
    file = BytesIO()
    torch.save(ResNet(DEPTH).state_dict(), file)
    before, started = api.cpu_times(), time.perf_counter()
    client.post("/v1/checkpoints", files={"file": ("network.pt", file.getvalue())}).raise_for_status()
    seconds, after = time.perf_counter() - started, api.cpu_times()
    return seconds, after.user + after.system - before.user - before.system


@contextmanager
def longest_delay(url: str) -> Iterator[list[float]]:
    """The seconds that /livez takes, asked for again and again while the block runs."""
    delays: list[float] = []
    ended = Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=300) as client:
            while not ended.wait(POLL_SECONDS):
                started = time.perf_counter()
                client.get("/livez").raise_for_status()
                delays.append(time.perf_counter() - started)

    asking = Thread(target=ask)
    asking.start()
    try:
        yield delays
    finally:
        ended.set()
        asking.join()


def recognition() -> float:
    """Seconds that a fresh process takes to recognise the network, after its imports."""
    shapes = json.dumps({name: list(tensor.shape) for name, tensor in ResNet(DEPTH).state_dict().items()})
    command = [sys.executable, "-c", RECOGNITION]
    return float(subprocess.run(command, input=shapes, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
