"""Do jobs survive? A campaign of faults against the service as deployed, while jobs run and clients poll and stream.

python -m bench.faults [--faults 300] [--jobs 40] [--pause 2.0] [--quick]

PostgreSQL, Redis, two API replicas and three Celery workers run as processes, and each is started again when it ends. Meanwhile
faults of bench/campaign/faults.py befall them, in an order that the seed decides. The campaign fails unless

- every job has succeeded once, with one predictor whose artefact has the bytes of the same job without faults;
- the poison job, whose training is killed at each start, has failed at the cap (NERN_MAX_ATTEMPTS);
- each client's stream has all events of its job once, in order, across all its connections;
- with --flood N, a job of this owner began within the time of one job although another owner had created N jobs before it;
- nothing is left over: no lease, no snapshot, no blob without a row (after the cleanup, which need not wait for a day here),
  no listed worker, no process. The poison job keeps its snapshots.

- an attempt that died has lost more work than was made in NERN_SNAPSHOT_SECONDS and STORING_SECONDS, unless a snapshot
  could not be stored or used because of a fault.

"lost" are the seconds of work after the snapshot that the next attempt resumed from, as far as the events tell: they have a
step about once a second. Counted apart are attempts that had to refuse a snapshot, because the campaign had damaged or
unmounted it ("refused"), and those in whose last seconds a fault of KEEPS_FROM_STORING befell the place ("not stored").
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
from sqlalchemy import func, select

from bench.campaign.clients import Follower, insist, key_of
from bench.campaign.deployment import Deployment, deployed
from bench.campaign.faults import FAULTS, KEEPS_FROM_STORING
from bench.campaign.flood import wait_behind
from bench.tables import Row, parser, progress, show
from service.jobs.cleanup import cleanup
from service.settings import Settings
from service.store import jobs
from service.store.blobs import Blobs
from service.store.ids import new_id
from service.store.tables import Checkpoint, Job, JobSnapshot, Predictor, Worker
from tests.support.networks import resnet8, saved
from tests.support.waiting import until

SETTINGS = {
    "NERN_LEASE_SECONDS": "3",
    "NERN_SWEEP_SECONDS": "0.5",
    "NERN_POLL_SECONDS": "0.2",
    "NERN_SNAPSHOT_SECONDS": "2",
}

# Different jobs, each of which has a reference without faults.
SEEDS = 4

JOB = {"hidden": 8, "kernel_batch": 256}
STEPS = 1500

# So long a worker takes to store a snapshot: the processes share two cores.
STORING_SECONDS = 1.0

# So long after a fault a worker still can't store: it waits for its next try (worker.snapshots.RETRY_SECONDS), and a connection
# that has hung is given up.
AFTER_SECONDS = 4.0


@dataclass(frozen=True)
class Spell:
    """The time in which a fault was there, and its name."""

    name: str
    began: datetime
    ended: datetime


@dataclass(frozen=True)
class Resumption:
    """An attempt that went on from a snapshot, `lost` seconds of work after it. `ended`: the last sign of the one before."""

    job_id: str
    lost: float
    ended: datetime
    refused: bool

    def kept_from_storing(self, spells: Sequence[Spell]) -> bool:
        """Whether a fault kept the attempt before from storing a snapshot in its last seconds."""
        began = self.ended - timedelta(seconds=max(self.lost, float(SETTINGS["NERN_SNAPSHOT_SECONDS"])))
        after = timedelta(seconds=AFTER_SECONDS)
        return any(
            spell.name in KEEPS_FROM_STORING and spell.began <= self.ended and began <= spell.ended + after for spell in spells
        )


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--faults", type=int, default=300)
    arguments.add_argument("--jobs", type=int, default=40)
    arguments.add_argument("--steps", type=int, default=STEPS, help="steps of a job")
    # Higher than the default, because a long campaign kills some job three times before its first snapshot.
    arguments.add_argument("--kinds", nargs="+", choices=FAULTS, default=sorted(FAULTS), metavar="KIND", help=", ".join(FAULTS))
    arguments.add_argument("--logs", type=Path, metavar="FOLDER", help="where the logs of all processes go")
    arguments.add_argument("--cap", type=int, default=12, help="attempts of the poison job (NERN_MAX_ATTEMPTS)")
    arguments.add_argument("--workers", type=int, default=3, help="Celery workers")
    arguments.add_argument("--flood", type=int, default=0, help="jobs that another owner creates first")
    arguments.add_argument("--pause", type=float, default=2.0, help="seconds from one fault to the next, on average")
    options = arguments.parse_args()
    if options.quick:
        options.faults, options.jobs, options.pause = 20, 6, 0.5
    with TemporaryDirectory(prefix="nern-faults-") as folder:
        row, found = campaign(Path(folder), options)
        if options.logs:
            options.logs.mkdir(parents=True, exist_ok=True)
            for log in Path(folder).glob("*.log"):
                shutil.copy(log, options.logs)
    show([row], "Faults", options)
    for finding in found:
        progress.print(finding, style="red")
    if found:
        raise SystemExit(f"{len(found)} promises were broken")


def campaign(folder: Path, options: argparse.Namespace) -> tuple[Row, list[str]]:
    """Runs the campaign. Returns the row of the report, and what was broken."""
    chance = random.Random(options.seed)
    settings = {**SETTINGS, "NERN_MAX_ATTEMPTS": str(options.cap)}
    with deployed(folder, settings, workers=options.workers) as place:
        place.ready()
        checkpoint = insist(place.urls, "POST", "/v1/checkpoints", files={"file": ("net.pt", saved(resnet8()))})["id"]
        flood = None
        if options.flood:
            progress.print(f"another owner creates {options.flood} jobs")
            flood = wait_behind(place, options.flood, {"steps": options.steps, **JOB})
        progress.print("references")
        asked = [create(place, checkpoint, seed, options.steps) for seed in range(SEEDS)]
        references = [finished(place, id) for id in asked]
        expected = [artefact(place, reference) for reference in references]
        started = time.monotonic()
        made = [create(place, checkpoint, number % SEEDS, options.steps) for number in range(options.jobs)]
        followers = [Follower(place.urls, id, first=number) for number, id in enumerate(made)]
        poison = create(place, checkpoint, 0, options.steps, priority=1)
        over = Event()
        killer = Thread(target=kill_again_and_again, args=(place, poison, over), daemon=True)
        killer.start()
        spells = befall(place, chance, options)
        progress.print("no more faults")
        for number, id in enumerate(made):
            finished(place, id)
            progress.print(f"{number + 1} of {len(made)} jobs", style="dim")
        until(lambda: state(place, poison) == "failed", what="the end of the poison job")
        seconds = time.monotonic() - started
        over.set()
        killer.join()
        for follower in followers:
            follower.thread.join(60)
        found = broken(place, made, followers, expected, poison)
        resumptions = [resumption for id in made for resumption in resumptions_of(place, id)]
        refused = [each for each in resumptions if each.refused]
        late = [each for each in resumptions if not each.refused and each.kept_from_storing(spells)]
        others = [each for each in resumptions if each not in refused and each not in late]
        most = float(SETTINGS["NERN_SNAPSHOT_SECONDS"]) + STORING_SECONDS
        found += [f"job {each.job_id} lost {each.lost:.1f} s of work" for each in others if each.lost > most]
        attempts = [attempts_of(place, id) for id in made]
        place.resting.set()
        ends = [worker.end() for worker in place.workers]
        found += left_over(place)
        if flood and flood.seconds > flood.job_seconds:
            found.append(
                f"a job waited {flood.seconds:.1f} s behind another owner's jobs, each of {flood.job_seconds:.1f} s at most"
            )
    return {
        "faults": len(spells),
        "kinds": len({spell.name for spell in spells}),
        "jobs": len(made),
        "minutes": seconds / 60,
        "attempts": sum(attempts),
        "resumed": len(resumptions),
        "lost, median s": statistics.median(each.lost for each in others) if others else 0.0,
        "lost, most s": max((each.lost for each in others), default=0.0),
        "refused": len(refused),
        "not stored": len(late),
        "lost then, most s": max((each.lost for each in late), default=0.0),
        "connections": sum(follower.connections for follower in followers),
        "SIGTERM, s": max(ends),
        "waited, s": flood.seconds if flood else None,
        "a job, s": flood.job_seconds if flood else None,
        "broken": len(found),
    }, found


def befall(place: Deployment, chance: random.Random, options: argparse.Namespace) -> list[Spell]:
    """One fault after the other: each kind equally often, in a random order."""
    rounds = -(-options.faults // len(options.kinds))
    names = [name for _ in range(rounds) for name in chance.sample(options.kinds, len(options.kinds))]
    spells = []
    for number, name in enumerate(names[: options.faults]):
        progress.print(f"{number + 1}: {name}", style="dim")
        began = datetime.now(UTC)
        FAULTS[name](place, chance)
        spells.append(Spell(name, began, datetime.now(UTC)))
        time.sleep(2 * options.pause * chance.random())
    return spells


def create(place: Deployment, checkpoint: str, seed: int, steps: int, **values: Any) -> str:
    """Creates a job, however often that takes, and only once."""
    body = {"checkpoint_id": checkpoint, "seed": seed, "steps": steps, **JOB, **values}
    return str(insist(place.urls, "POST", "/v1/jobs", json=body, headers={"Idempotency-Key": new_id()})["id"])


def kill_again_and_again(place: Deployment, id: str, over: Event) -> None:
    """Kills the process that works on a job whenever there is one."""
    while not over.wait(0.02):
        with suppress(Exception), place.database.read() as session:
            job = session.get_one(Job, id)
            if job.state == "running" and job.worker:
                os.kill(job.worker["process"], signal.SIGKILL)


def state(place: Deployment, id: str) -> str:
    return str(insist(place.urls, "GET", f"/v1/jobs/{id}")["state"])


def finished(place: Deployment, id: str) -> str:
    """Waits until a job has succeeded or failed. Returns its id."""
    until(lambda: state(place, id) in ("succeeded", "failed"), what=f"the end of job {id}")
    return id


def artefact(place: Deployment, id: str) -> str | None:
    """The hash of the artefact that a job has made, as a client gets it."""
    if (predictor := insist(place.urls, "GET", f"/v1/jobs/{id}")["predictor_id"]) is None:
        return None
    address = f"{place.urls[0]}/v1/predictors/{predictor}/file"
    return hashlib.sha256(httpx.get(address, timeout=60, headers=key_of()).content).hexdigest()


def broken(place: Deployment, made: list[str], followers: list[Follower], expected: list[str | None], poison: str) -> list[str]:
    """The promises that were broken, as sentences."""
    found = []
    for number, (id, follower) in enumerate(zip(made, followers, strict=True)):
        job = insist(place.urls, "GET", f"/v1/jobs/{id}")
        if job["state"] != "succeeded":
            found.append(f"job {id} has {job['state']}: {job['error']}")
        elif artefact(place, id) != expected[number % SEEDS]:
            found.append(f"job {id} has another artefact than without faults")
        with place.database.read() as session:
            count = session.scalar(select(func.count()).where(Predictor.job_id == id))
            numbers = [event.number for event in jobs.events(session, id, after=0, limit=100_000)]
        if count != 1:
            found.append(f"job {id} has {count} predictors")
        if numbers != list(range(1, len(numbers) + 1)):
            found.append(f"the events of job {id} have gaps")
        if follower.numbers != numbers:
            found.append(f"the stream of job {id} differs from its events: {follower.numbers} and {numbers}")
    error = insist(place.urls, "GET", f"/v1/jobs/{poison}")["error"]
    if (error or {}).get("type") != "worker-lost":
        found.append(f"the poison job ended otherwise: {error}")
    return found


def left_over(place: Deployment) -> list[str]:
    """What is left when all jobs are over, all workers have ended, and the cleanup has removed blobs without a row."""
    with patch("service.jobs.cleanup.STRAY", timedelta(0)):
        cleanup(place.database, Blobs(place.blobs.as_uri()), Settings())
    with place.database.read() as session:
        leases = session.scalar(select(func.count()).where(Job.lease_owner.is_not(None)))
        kept = select(JobSnapshot.job_id).join(Job).where(Job.state != "succeeded")
        rows = session.scalar(select(func.count()).where(JobSnapshot.job_id.not_in(kept)))
        owners = set(session.scalars(kept))
        listed = session.scalar(select(func.count()).where(Worker.seen_at > func.now()))
        checkpoints = set(session.scalars(select(Checkpoint.id)))
    found = [f"{leases} leases"] if leases else []
    found += [f"{rows} rows of snapshots"] if rows else []
    found += [f"{listed} workers"] if listed else []
    strays = [path for path in place.blobs.glob("snapshots/*/*") if path.parent.name not in owners]
    found += [f"snapshot {path.relative_to(place.blobs)}" for path in strays]
    found += [f"blobs of checkpoint {path.name}" for path in place.blobs.glob("checkpoints/*") if path.name not in checkpoints]
    found += [f"{worker.name} runs" for worker in place.workers if worker.pid() or worker.children()]
    return found


def resumptions_of(place: Deployment, id: str) -> list[Resumption]:
    """The resumptions of a job, from its events. A step between two that were reported has the time between them."""
    with place.database.read() as session:
        events = jobs.events(session, id, after=0, limit=100_000)
    found, steps, moments = [], [0], [events[0].created_at.timestamp()]
    for event in events:
        moment = event.created_at.timestamp()
        if event.kind == "progress":
            steps.append(event.data["step"])
            moments.append(moment)
        elif event.kind == "resumed":
            snapshot = event.data["step"]
            lost = max(0.0, moments[-1] - float(np.interp(snapshot, steps, moments)))
            found.append(Resumption(id, lost, datetime.fromtimestamp(moments[-1], UTC), bool(event.data["refused"])))
            steps, moments = [snapshot], [moment]
        elif len(steps) == 1:
            # No step was reported yet: the job waits, or has begun only now.
            moments = [moment]
    return found


def attempts_of(place: Deployment, id: str) -> int:
    """How often a job was claimed."""
    with place.database.read() as session:
        return session.get_one(Job, id).fence


if __name__ == "__main__":
    main()
