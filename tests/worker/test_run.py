"""One job from the claim to its end, in this process, on a real database and real blobs."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import pytest
import torch
from obstore.exceptions import GenericError
from sqlalchemy.exc import OperationalError

from nern.training import DecoupledConfig
from service import blobs, figures
from service.blobs import Blobs
from service.settings import Settings
from service.store import ids, jobs, migrate, predictors
from service.store.database import Database
from service.store.tables import Checkpoint, Dataset, Job, Predictor
from tests.support.networks import dataset_file, resnet8, saved
from tests.support.representations import opened
from tests.support.stored import NOW
from tests.support.waiting import until
from worker import lease, reporting
from worker.run import DeviceFailed, Worker

SHORT = {"steps": 12, "hidden": 8, "image_batch": 4}


class Place:
    """A service's state, without its API."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder, lease_seconds=5, threads=1)
        folder.mkdir()
        self.database = Database(self.settings.database)
        migrate.upgrade(self.database)
        self.stopping = Event()
        self.worker = Worker(self.settings, self.stopping)

    def add(
        self, state_dict: dict[str, torch.Tensor], *, architecture: str | None, dataset: bytes | None = None, **config: Any
    ) -> str:
        """A queued job for a network, as the API would have left it; its id."""
        checkpoint = Checkpoint(
            id=ids.new_id(), sha256=ids.new_id(), filename="a.pt", size=1, format="torch-zip", architecture=architecture,
            candidates=[], layers=[], kept=[], weights=1, parameters=1, created_at=NOW,
        )  # fmt: skip
        self.put(blobs.checkpoint_tensors(checkpoint.id), saved(state_dict), "checkpoint")
        rows: list[Any] = [checkpoint]
        if dataset:
            channels = 1 if dataset == dataset_file(channels=1) else 3
            rows.append(Dataset(
                id=ids.new_id(), identity=ids.new_id(), sha256="", name="d", size=1, images=40, height=8, width=8,
                channels=channels, classes=10, mean=[0.5] * channels, std=[0.5] * channels, created_at=NOW,
            ))  # fmt: skip
            self.put(blobs.dataset_tensors(rows[1].id), dataset, "dataset")
        job = Job(
            id=ids.new_id(), state="queued", checkpoint_id=checkpoint.id, dataset_id=rows[1].id if dataset else None,
            architecture=architecture, config=DecoupledConfig(**{**SHORT, **config}).model_dump(mode="json"), notes=[],
            attempt=0, fence=0, cancel_requested=False, created_at=NOW,
        )  # fmt: skip
        with self.database.write() as session:
            session.add_all(rows)
            session.flush()
            jobs.add(session, job)
        return job.id

    def put(self, key: str, content: bytes, kind: Any) -> None:
        from service.inspection import inspect

        source, target = self.settings.data_dir / "in", self.settings.data_dir / "out"
        source.write_bytes(content)
        if kind == "checkpoint":
            asyncio.run(inspect.inspect_checkpoint(source, target, seconds=60))
        else:
            asyncio.run(inspect.inspect_dataset(source, target, seconds=60, max_bytes=10**7))
        asyncio.run(Blobs(self.settings.blobs).put(key, target))

    def job(self, id: str) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, id)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "data")
    yield place
    place.database.close()


def test_a_job_ends_in_a_predictor_that_rebuilds_the_network(place: Place) -> None:
    network = resnet8()
    id = place.add(network, architecture="cifar/resnet8", dataset=dataset_file())
    assert place.worker.work()
    job = place.job(id)
    assert (job.state, job.error, job.attempt, job.lease_owner) == ("succeeded", None, 1, None)
    assert job.progress is not None
    assert job.progress["fraction"] == 1.0
    assert job.predictor_id is not None
    with place.database.read() as session:
        predictor = predictors.get(session, job.predictor_id)
        assert predictor is not None
        content = predictors.read(session, predictor.id, 0, predictor.size)
    assert hashlib.sha256(content).hexdigest() == predictor.sha256
    rebuilt = opened(content).state_dict()
    assert {name: tensor.shape for name, tensor in rebuilt.items()} == {name: tensor.shape for name, tensor in network.items()}
    report = predictor.report
    layer = report["relative_error"]["layers"][2]
    error = (rebuilt[layer["name"]] - network[layer["name"]]).norm() / network[layer["name"]].norm()
    assert layer["relative_error"] == pytest.approx(error.item(), rel=1e-4)
    assert report["images"] == 4
    assert report["bytes"]["total"] == len(content)
    assert report["bytes"]["predictor"] == 2 * report["parameters"]
    assert not place.worker.work()


def test_a_predictor_can_be_sized_compressed_and_looked_into(place: Place) -> None:
    wanted = {"hidden": None, "target": {"drop": 50.0}, "bits": 4, "importance": True, "steps": 9}
    id = place.add(resnet8(), architecture="cifar/resnet8", dataset=dataset_file(), **wanted)
    place.worker.work()
    job = place.job(id)
    assert (job.state, job.error) == ("succeeded", None)
    assert job.progress is not None
    assert (job.progress["phase"], job.progress["fraction"]) == ("importance", 1.0)
    with place.database.read() as session:
        predictor = session.get_one(Predictor, job.predictor_id)
    assert predictor.report["compression"] == {"bits": 4, "sparsity": 0.0}
    assert predictor.report["bytes"]["predictor"] < predictor.report["parameters"]
    assert predictor.report["target"]["met"] is True
    assert len(predictor.report["target"]["sizes"]) == 3
    assert predictor.config["hidden"] == predictor.report["target"]["sizes"][-1]["hidden"]
    assert set(predictor.report["importance"]["curves"]) == {"weight", "kernel", "filter"}
    assert b"svg" in figures.draw("importance", predictor.report)


FAILURES: list[tuple[str, Callable[[Place], str], str, str]] = [
    (
        "wrong architecture",
        lambda place: place.add(resnet8(), architecture="cifar/resnet20", dataset=dataset_file()),
        "unknown-architecture",
        "layer1.1.conv1.weight",
    ),
    (
        "images of another shape",
        lambda place: place.add(resnet8(), architecture="cifar/resnet8", dataset=dataset_file(channels=1)),
        "unusable-images",
        "can't take these images",
    ),
]


@pytest.mark.parametrize(("add", "kind", "detail"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_a_failing_job_says_why_and_the_next_one_runs(
    place: Place, add: Callable[[Place], str], kind: str, detail: str
) -> None:
    failing, next_one = add(place), place.add(resnet8(), architecture=None)
    assert place.worker.work()
    assert place.worker.work()
    failed = place.job(failing)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["type"] == kind
    assert detail in failed.error["detail"]
    assert place.job(next_one).state == "succeeded"


def test_a_blob_store_that_is_away_costs_an_attempt_and_not_the_job(place: Place) -> None:
    id = place.add(resnet8(), architecture=None)
    with patch("obstore.get", side_effect=GenericError("no route to host")):
        assert place.worker.work()
    assert (place.job(id).state, place.job(id).attempt) == ("running", 1)
    with place.database.write() as session:
        jobs.sweep(session, now=datetime.now(UTC) + timedelta(seconds=6), max_attempts=3)
    assert place.worker.work()
    assert (place.job(id).state, place.job(id).attempt) == ("succeeded", 2)


@pytest.mark.parametrize(("setting", "devices"), [("cuda", 0), ("cuda:1", 1)])
def test_a_device_that_is_not_there_is_refused_before_any_job_is_claimed(place: Place, setting: str, devices: int) -> None:
    settings = place.settings.model_copy(update={"device": setting})
    with patch("torch.cuda.device_count", return_value=devices), pytest.raises(SystemExit, match=f"NERN_DEVICE is {setting}, "):
        Worker(settings, place.stopping)
    with patch("torch.cuda.device_count", return_value=devices + 1):
        Worker(settings, place.stopping)


@pytest.mark.parametrize("where", ["nern.training.train", "nern.evaluation.Judge._logits"])
def test_a_device_that_fails_ends_the_worker_and_not_the_jobs(place: Place, where: str) -> None:
    waiting = [place.add(resnet8(), architecture="cifar/resnet8", dataset=dataset_file()) for _ in range(2)]
    with (
        patch(where, side_effect=torch.AcceleratorError("CUDA error: unspecified launch failure")),
        pytest.raises(DeviceFailed),
    ):
        place.worker.work()
    assert [place.job(job).state for job in waiting] == ["running", "queued"]


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_job_that_needs_too_much_memory_says_so(place: Place, error: Exception) -> None:
    job = place.add(resnet8(), architecture=None, **SHORT)
    with patch("nern.training.train", side_effect=error):
        place.worker.work()
    assert place.job(job).error == {"type": "out-of-memory", "detail": "the training needs more memory than the worker has"}


def test_a_loss_that_is_not_finite_fails_the_job(place: Place) -> None:
    id = place.add(resnet8(), architecture=None)
    with patch("nern.training.recipes.reconstruct", lambda *_: {"reconstruction": float("nan")}):
        place.worker.work()
    error = place.job(id).error
    assert error is not None
    assert error["type"] == "training-diverged"
    assert error["detail"].startswith("the reconstruction loss became nan at step 1 of 12; ")
    assert ".weight" in error["detail"]


def test_a_fault_is_not_told_to_clients(place: Place) -> None:
    id = place.add(resnet8(), architecture=None)
    with patch("nern.training.recipes.reconstruct", side_effect=ZeroDivisionError("/secret/path")):
        place.worker.work()
    error = place.job(id).error
    assert error is not None
    assert error["type"] == "internal"
    assert "secret" not in error["detail"]


def test_a_deleted_input_fails_the_job(place: Place) -> None:
    id = place.add(resnet8(), architecture=None)
    asyncio.run(Blobs(place.settings.blobs).delete(blobs.checkpoint_tensors(place.job(id).checkpoint_id)))
    place.worker.work()
    error = place.job(id).error
    assert error is not None
    assert error["type"] == "input-missing"


def working(place: Place) -> tuple[str, Thread]:
    """A job that would take for ever, and the thread that works on it."""
    id = place.add(resnet8(), architecture=None, steps=1_000_000)
    thread = Thread(target=place.worker.work)
    thread.start()
    until(lambda: (place.job(id).progress or {}).get("step"), what="a first step")
    return id, thread


@pytest.fixture
def _quick_pulse() -> Iterator[None]:
    with patch.object(lease, "HEARTBEAT_SECONDS", 0.05), patch.object(reporting, "EVERY_SECONDS", 0.05):
        yield


@pytest.mark.usefixtures("_quick_pulse")
def test_a_running_job_is_cancelled_soon(place: Place) -> None:
    id, thread = working(place)
    with place.database.write() as session:
        jobs.request_cancel(session, id, NOW)
    thread.join(30)
    assert (place.job(id).state, place.job(id).predictor_id) == ("cancelled", None)


@pytest.mark.usefixtures("_quick_pulse")
def test_a_worker_that_stops_gives_its_job_back(place: Place) -> None:
    id, thread = working(place)
    place.stopping.set()
    thread.join(30)
    job = place.job(id)
    assert (job.state, job.attempt, job.lease_owner) == ("queued", 0, None)


@pytest.mark.usefixtures("_quick_pulse")
def test_a_worker_that_lost_its_lease_writes_nothing_and_stops(place: Place) -> None:
    id, thread = working(place)
    with place.database.write() as session:
        jobs.sweep(session, now=datetime.now(UTC) + timedelta(hours=1), max_attempts=3)
        taken = jobs.claim(session, owner="another", now=datetime.now(UTC), lease=timedelta(hours=1))
    assert taken is not None
    thread.join(30)
    assert not thread.is_alive()
    job = place.job(id)
    assert (job.state, job.lease_owner, job.fence) == ("running", "another", 2)


@pytest.mark.usefixtures("_quick_pulse")
def test_a_long_training_keeps_its_lease(place: Place) -> None:
    id, thread = working(place)
    first = place.job(id).lease_expires_at
    assert first is not None
    until(lambda: (place.job(id).lease_expires_at or NOW) > first, what="an extended lease")
    place.stopping.set()
    thread.join(30)


@pytest.mark.usefixtures("_quick_pulse")
def test_a_training_outlives_a_database_that_is_away_for_a_moment(place: Place) -> None:
    id = place.add(resnet8(), architecture=None, steps=30)
    away, real = iter([True, False] * 1000), jobs.report_progress

    def report(*args: Any, **kwargs: Any) -> None:
        if next(away):
            raise OperationalError("", {}, Exception())
        real(*args, **kwargs)

    with patch.object(jobs, "report_progress", report), patch.object(jobs, "finish", flaky(jobs.finish)):
        place.worker.work()
    assert place.job(id).state == "succeeded"
    with place.database.read() as session:
        events = jobs.events(session, id, after=0, limit=1000)
    assert [event.kind for event in events].count("metrics") >= 1


def flaky(real: Callable[..., None]) -> Callable[..., None]:
    """Fails once."""
    calls: list[int] = []

    def write(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OperationalError("", {}, Exception())
        real(*args, **kwargs)

    return write


@pytest.mark.usefixtures("_quick_pulse")
def test_a_worker_stops_while_it_still_searches_paths(place: Place) -> None:
    id = place.add(resnet8(), architecture=None)
    started = Event()

    def check(pulse: lease.Pulse) -> None:
        started.set()
        place.stopping.set()
        real(pulse)

    real = lease.Pulse.check
    with patch.object(lease.Pulse, "check", check), patch("nern.training.train.run", side_effect=AssertionError):
        place.worker.work()
    assert started.is_set()
    assert (place.job(id).state, place.job(id).attempt) == ("queued", 0)


def test_events_stay_few_however_many_steps(place: Place) -> None:
    id = place.add(resnet8(), architecture=None, steps=2000, hidden=2, kernel_batch=16)
    started = time.monotonic()
    place.worker.work()
    assert time.monotonic() - started < 60
    with place.database.read() as session:
        events = jobs.events(session, id, after=0, limit=1000)
    assert len([event for event in events if event.kind == "progress"]) <= 101
    assert 5 <= len([event for event in events if event.kind == "metrics"]) <= 6
