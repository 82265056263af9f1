"""What does a job lose when its worker ends? A ResNet-20 job whose worker is killed, or stopped, again and again.

python -m bench.ends [--kills 40] [--stops 50] [--checkpoint FILE] [--quick]

One job runs undisturbed. Another one's worker gets SIGKILL at a random moment, is started again, and so on; a third one's gets
SIGTERM. The moments are spread evenly over the work of the job: loading, the search for paths, steps, evaluations, storing.
The benchmark fails unless all three artefacts have the same bytes.

"steps" are those that were made, over those that the job has. After SIGKILL, a step that was made is known when it was
reported, once a second. So for each kill, the steps of one second are added. After SIGTERM, the steps that were reported and
that the snapshot lacks are counted. "end" is the time from the signal to the end of the process.
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench.fidelity import load
from bench.tables import Row, parser, progress, show
from nern.architectures.cifar import ResNet
from service.store import jobs, snapshots
from service.store.tables import Job, Predictor
from tests.support.place import Place
from tests.support.processes import environment

SNAPSHOT_SECONDS = 2.0


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--kills", type=int, default=40)
    arguments.add_argument("--stops", type=int, default=50)
    arguments.add_argument("--steps", type=int, default=2400, help="steps of the job")
    arguments.add_argument("--checkpoint", type=Path, help="resnet20-12fca82f.th; without it, the weights are random")
    options = arguments.parse_args()
    if options.quick:
        options.kills, options.stops, options.steps = 4, 4, 120
    torch.manual_seed(options.seed)
    network = load(options.checkpoint) if options.checkpoint else _random()
    rows: list[Row] = []
    with TemporaryDirectory(prefix="nern-ends-") as folder:
        place = Place(Path(folder) / "data")
        wanted = {"steps": options.steps, "reconstruction_steps": options.steps * 3 // 4, "hidden": 128, "image_batch": 32}
        seconds, expected = 0.0, None
        for name, number, times in (
            ("undisturbed", None, 0), ("SIGKILL", signal.SIGKILL, options.kills), ("SIGTERM", signal.SIGTERM, options.stops),
        ):  # fmt: skip
            if number and not times:
                continue
            id = place.add(network, architecture="cifar/resnet20", noise="normal", **wanted)
            run = Run(place, id, options)
            run.work(number, times, seconds)
            seconds = seconds or run.seconds
            expected = expected or run.artefact()
            rows.append({"signal": name, **run.row(), "same bytes": run.artefact() == expected})
            progress.print(rows[-1])
        place.database.close()
    show(rows, "Workers that end", options)
    if not all(row["same bytes"] for row in rows):
        raise SystemExit("an artefact differs")


def _random() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in ResNet(20).state_dict().items()}


class Run:
    """The runs of the workers of one job."""

    def __init__(self, place: Place, id: str, options: argparse.Namespace) -> None:
        self._place, self._id, self._options = place, id, options
        self._chance = random.Random(options.seed)
        self._environment = environment(
            {
                "NERN_DATA_DIR": str(place.settings.data_dir),
                "NERN_THREADS": str(options.threads),
                "NERN_SNAPSHOT_SECONDS": str(SNAPSHOT_SECONDS),
                "NERN_MAX_ATTEMPTS": "1000",
                "NERN_POLL_SECONDS": "0.1",
            }
        )
        self.seconds = 0.0
        self._ends: list[float] = []
        self._lost: list[float] = []

    def work(self, number: signal.Signals | None, times: int, seconds: float) -> None:
        """Runs workers until the job is over. The first `times` of them get a signal."""
        started = time.monotonic()
        while self._job().state not in ("succeeded", "failed"):
            with subprocess.Popen(
                [sys.executable, "-P", "-m", "worker"], env=self._environment, stderr=subprocess.DEVNULL
            ) as worker:
                if number is None or len(self._ends) >= times:
                    while self._job().state not in ("succeeded", "failed"):
                        time.sleep(0.1)
                    worker.terminate()
                    continue
                self._wait(worker, 2 * self._chance.random() * seconds / times)
                os.kill(worker.pid, number)
                signalled = time.monotonic()
                worker.wait()
                self._ends.append(time.monotonic() - signalled)
            self._count_lost(number)
        self.seconds = time.monotonic() - started

    def row(self) -> Row:
        """The figures of the runs."""
        steps = self._options.steps
        return {
            "signals": len(self._ends),
            "steps": (steps + sum(self._lost)) / steps,
            "lost, most": max(self._lost, default=0.0),
            "end, median s": statistics.median(self._ends) if self._ends else None,
            "end, most s": max(self._ends, default=None),
            "minutes": self.seconds / 60,
        }

    def artefact(self) -> str:
        """The hash of the artefact."""
        job = self._job()
        assert job.state == "succeeded", job.error
        with self._place.database.read() as session:
            return session.get_one(Predictor, job.predictor_id).sha256

    def _wait(self, worker: "subprocess.Popen[bytes]", seconds: float) -> None:
        """Waits for so many seconds of work, counted from the claim."""
        while self._job().state == "queued" and worker.poll() is None:
            time.sleep(0.02)
        time.sleep(seconds)

    def _count_lost(self, number: signal.Signals) -> None:
        """Counts the steps that were made and that no snapshot has. The sweep finds the job of a killed worker."""
        job = self._job()
        with self._place.database.write() as session:
            stored = snapshots.newest_first(session, self._id)
            newest = stored[0].step if stored else 0
            if number == signal.SIGKILL and job.state == "running":
                reported = job.progress or {"step": 0, "steps_per_second": 0.0}
                self._lost.append(max(0.0, reported["step"] - newest) + reported["steps_per_second"])
            if number == signal.SIGTERM and job.state == "queued":
                events = jobs.tail(session, self._id, 1000)
                steps = [event.data["step"] for event in events if event.kind == "progress"]
                self._lost.append(max(0.0, max(steps, default=0) - newest))
            jobs.sweep(session, now=datetime.now(UTC) + timedelta(hours=1), max_attempts=1000)

    def _job(self) -> Job:
        return self._place.job(self._id)


if __name__ == "__main__":
    main()
