"""One job from the claim to its end, in this process, on a real database and real blobs."""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import numpy as np
import pytest
import torch
from obstore.exceptions import GenericError, PermissionDeniedError
from sqlalchemy import text, update

from service.serving import figures
from service.store import blobs, jobs, predictors
from service.store.blobs import Blobs
from service.store.tables import Installation, Job, Json, Predictor
from tests.support.networks import dataset_file, npz, resnet8
from tests.support.place import Place
from tests.support.representations import opened
from tests.support.rows import NOW
from worker.run import NoSuchDevice, Unsound, Worker


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


def test_images_may_be_floats(place: Place) -> None:
    pixels = np.random.default_rng(0).random((40, 8, 8, 3), np.float32)
    id = place.add(resnet8(), architecture="cifar/resnet8", dataset=npz(images=pixels, labels=np.arange(40) % 10))
    assert place.worker.work()
    job = place.job(id)
    assert (job.state, job.error) == ("succeeded", None)
    with place.database.read() as session:
        assert session.get_one(Predictor, job.predictor_id).report["agreement"] is not None


def test_inputs_and_targets_of_a_dataset_are_those_of_the_network(place: Place) -> None:
    numbers = np.random.default_rng(0)
    file = npz(inputs=numbers.random((40, 3, 8, 8), np.float32), targets=numbers.random((40, 10), np.float32))
    described = {"kind": "inputs", "images": None, "channels": None, "classes": None, "mean": None, "std": None}
    id = place.add(resnet8(), architecture="cifar/resnet8", dataset=file, described=described, objective="values")
    assert place.worker.work()
    job = place.job(id)
    assert (job.state, job.error) == ("succeeded", None)
    assert job.metrics is not None
    assert (job.metrics["divergence"], job.metrics["accuracy"]) == (None, None)
    assert job.metrics["outputs"][0]["objective"] == "values"
    with place.database.read() as session:
        report = session.get_one(Predictor, job.predictor_id).report
    [output] = report["outputs"]
    assert output["quality"]["original"]["mse"] > 0
    assert 0 < output["relative_error"] < 10
    assert report["agreement"] is None


def test_a_predictor_can_be_sized_compressed_and_looked_into(place: Place) -> None:
    wanted: dict[str, Any] = {"hidden": None, "target": {"drop": 50.0}, "bits": 4, "importance": True, "steps": 9}
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


def test_a_job_may_distil_from_noise(place: Place) -> None:
    id = place.add(resnet8(), architecture="cifar/resnet8", noise="uniform")
    place.worker.work()
    assert place.job(id).state == "succeeded"
    with place.database.read() as session:
        report = session.get_one(Predictor, place.job(id).predictor_id).report
    assert (report["distilled"], report["images"], report["accuracy"]["original"]) == (True, 256, None)


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


def pass_time(place: Place, id: str) -> None:
    """Makes a job that waits after a fault due."""
    with place.database.write() as session:
        session.get_one(Job, id).not_before = datetime.now(UTC)


def states(place: Place, id: str) -> list[Json]:
    with place.database.read() as session:
        return [event.data for event in jobs.events(session, id, after=0, limit=99) if event.kind == "state"]


FAULTS: list[tuple[str, Any, str]] = [
    ("obstore.get_range", GenericError("no route to host"), "the blob store does not answer"),
    ("obstore.get_range", PermissionDeniedError("403"), "the blob store does not answer"),
    ("worker.inputs.TemporaryDirectory", OSError(28, "No space left on device"), "No space left on device"),
    ("worker.attempt.TemporaryDirectory", OSError(30, "Read-only file system"), "Read-only file system"),
]


@pytest.mark.parametrize(("where", "error", "reason"), FAULTS)
def test_a_fault_of_the_machine_costs_neither_an_attempt_nor_the_job(
    place: Place, where: str, error: Exception, reason: str
) -> None:
    id = place.add(resnet8(), architecture=None)
    pauses = []
    for _ in range(5):
        with patch(where, side_effect=error):
            assert place.worker.work()
        job = place.job(id)
        assert (job.state, job.attempt, job.fruitless) == ("queued", 0, 0)
        assert reason in states(place, id)[-1]["reason"]
        assert not place.worker.work(), "the job is claimed before it is due"
        assert job.not_before is not None
        pauses.append(round((job.not_before - datetime.now(UTC)).total_seconds()))
        pass_time(place, id)
    assert all(found in (wanted - 1, wanted) for found, wanted in zip(pauses, (1, 2, 4, 8, 16), strict=True))
    assert place.worker.work()
    assert (place.job(id).state, place.job(id).attempt) == ("succeeded", 1)


def test_the_pause_after_faults_has_an_end(place: Place) -> None:
    id = place.add(resnet8(), architecture=None)
    with place.database.write() as session:
        session.get_one(Job, id).faults = 1000
    with patch("obstore.get_range", side_effect=GenericError("no route to host")):
        assert place.worker.work()
    pause = (place.job(id).not_before or NOW) - datetime.now(UTC)
    assert 290 < pause.total_seconds() <= 300


UNFIT: list[tuple[str, Any, str]] = [
    ("obstore.get", {"side_effect": FileNotFoundError}, "is not mounted"),
    ("obstore.get", {"side_effect": GenericError("no route to host")}, "no route to host"),
    ("worker.fitness.tempfile.TemporaryFile", {"side_effect": OSError(28, "No space left on device")}, "No space left"),
    ("worker.fitness.shutil.disk_usage", {"return_value": MagicMock(free=2**20)}, "1 MiB left; 256 MiB are needed"),
    ("worker.fitness.torch.ones", {"side_effect": torch.AcceleratorError("CUDA error: no device")}, "cpu does not compute"),
]


@pytest.mark.parametrize(("where", "answer", "reason"), UNFIT)
def test_a_worker_that_could_work_on_no_job_claims_none(
    place: Place, where: str, answer: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    id = place.add(resnet8(), architecture=None)
    looks: list[float] = []
    now = 1000.0
    with patch("worker.fitness.time.monotonic", lambda: now):
        with patch(where, **answer) as asked:
            for now in range(1000, 1100):
                before = asked.call_count
                assert not place.worker.work()
                if asked.call_count > before:
                    looks.append(now - 1000)
        assert looks == [0, 1, 3, 7, 15, 31, 63]
        assert reason in caplog.text
        assert place.job(id).attempt == 0
        now = 1200
        assert place.worker.work()
    assert place.job(id).state == "succeeded"


def test_a_worker_goes_on_with_a_later_schema_until_that_takes_away_what_it_needs(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = place.add(resnet8(), architecture=None), place.add(resnet8(), architecture=None)
    with place.database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        session.execute(text("ALTER TABLE job ADD COLUMN new VARCHAR"))
    assert place.worker.work()
    assert place.job(first).state == "succeeded"
    with place.database.write() as session:
        session.execute(update(Installation).values(oldest="9998"))
    assert not Worker(place.settings, place.stopping).work()
    assert place.job(second).attempt == 0
    assert "this worker claims no jobs: the database is at migration 9999" in caplog.text


def test_a_worker_of_a_new_release_waits_for_the_migration(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    id = place.add(resnet8(), architecture=None)
    with place.database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0011'"))
    assert not place.worker.work()
    assert place.job(id).attempt == 0
    assert "this worker claims no jobs: the database is at migration 0011" in caplog.text


def test_a_blob_folder_that_is_not_there_is_not_made(place: Place, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    settings = place.settings.model_copy(update={"blob_url": mount.as_uri()})
    with pytest.raises(FileNotFoundError, match="does not exist; mount or make it"):
        Worker(settings, place.stopping)
    assert not mount.exists()


@pytest.mark.parametrize(("setting", "devices"), [("cuda", 0), ("cuda:1", 1)])
def test_a_device_that_is_not_there_is_refused_before_any_job_is_claimed(place: Place, setting: str, devices: int) -> None:
    settings = place.settings.model_copy(update={"device": setting})
    with (
        patch("torch.cuda.device_count", return_value=devices),
        pytest.raises(NoSuchDevice, match=f"is {setting}, "),
    ):
        Worker(settings, place.stopping)
    with patch("torch.cuda.device_count", return_value=devices + 1), patch("torch.cuda.get_device_name", return_value="a GPU"):
        Worker(settings, place.stopping)


@pytest.mark.parametrize("where", ["nern.training.train", "nern.teachers.renamed.functional_call"])
def test_a_device_that_fails_ends_the_worker_and_not_the_jobs(place: Place, where: str) -> None:
    waiting = [place.add(resnet8(), architecture="cifar/resnet8", dataset=dataset_file()) for _ in range(2)]
    with (
        patch(where, side_effect=torch.AcceleratorError("CUDA error: unspecified launch failure")),
        pytest.raises(Unsound, match="the GPU of the worker failed"),
    ):
        place.worker.work()
    assert [(place.job(job).state, place.job(job).attempt) for job in waiting] == [("queued", 1), ("queued", 0)]
    assert states(place, waiting[0])[-1]["reason"] == "the GPU of the worker failed"


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_job_that_needs_too_much_memory_says_so(place: Place, error: Exception) -> None:
    job = place.add(resnet8(), architecture=None)
    with patch("nern.training.train", side_effect=error):
        place.worker.work()
    assert place.job(job).error == {"type": "out-of-memory", "detail": "the training needs more memory than the worker has"}


def test_a_loss_that_is_not_finite_fails_the_job(place: Place) -> None:
    id = place.add(resnet8(), architecture=None)
    with patch("nern.training.phases.reconstruction.reconstruct", lambda *_: {"reconstruction": float("nan")}):
        place.worker.work()
    error = place.job(id).error
    assert error is not None
    assert error["type"] == "training-diverged"
    assert error["detail"].startswith("the reconstruction loss became nan at step 1 of 12; ")
    assert ".weight" in error["detail"]


def test_an_unforeseen_error_ends_the_process_and_is_not_told_to_clients(place: Place) -> None:
    """The error may lie in the process: another one tries again, and the job fails when none succeeds."""
    id = place.add(resnet8(), architecture=None)
    for attempt in (1, 2, 3):
        pass_time(place, id)
        with (
            patch("nern.training.phases.reconstruction.reconstruct", side_effect=ZeroDivisionError("/secret/path")),
            pytest.raises(Unsound),
        ):
            place.worker.work()
        assert (place.job(id).state, place.job(id).attempt) == ("queued" if attempt < 3 else "failed", attempt)
    error = place.job(id).error
    assert error == {
        "type": "internal",
        "detail": "the worker met with an unforeseen error in each attempt; its log describes the error",
    }
    assert "secret" not in str(states(place, id))


def test_an_unforeseen_error_in_one_process_costs_an_attempt(place: Place) -> None:
    id = place.add(resnet8(), architecture=None)
    with (
        patch("nern.training.phases.reconstruction.reconstruct", side_effect=AssertionError),
        pytest.raises(Unsound),
    ):
        place.worker.work()
    pass_time(place, id)
    assert Worker(place.settings, place.stopping).work()
    assert (place.job(id).state, place.job(id).attempt) == ("succeeded", 2)


def test_a_deleted_input_fails_the_job(place: Place) -> None:
    id = place.add(resnet8(), architecture=None)
    asyncio.run(Blobs(place.settings.blobs).delete(blobs.checkpoint_tensors(place.job(id).checkpoint_id)))
    place.worker.work()
    error = place.job(id).error
    assert error is not None
    assert error["type"] == "input-missing"
