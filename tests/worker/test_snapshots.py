"""Jobs whose attempts end early, in every way: the next attempt goes on from a snapshot, and the result is the same."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import patch

import pytest
from obstore.exceptions import GenericError

from nern.network import Network
from nern.request import DecoupledRequest
from nern.training import Progress, Snapshot, train
from service.store import blobs, jobs, snapshots
from service.store.blobs import MARK, Blobs
from service.store.marking import mark
from service.store.tables import Job, Json, Predictor
from tests.support.networks import dataset_file, resnet8
from tests.support.place import Place
from tests.support.waiting import DEADLINE_SECONDS
from worker import attempt
from worker.lease import Pulse
from worker.reporting import Reporter
from worker.run import Worker
from worker.snapshots import END_SECONDS, SnapshotWriter

SEARCH: dict[str, Any] = {"hidden": None, "target": {"drop": 50.0}, "steps": 6, "reconstruction_steps": 3}

JOBS: dict[str, dict[str, Any]] = {"one training": {}, "a search": SEARCH}


class Killed(BaseException):
    """Ends a worker at once, as a signal does that can't be handled."""


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For each kind of job, the hash of the artefact of one that nothing has happened to."""
    place = Place(tmp_path_factory.mktemp("references") / "data")
    made = {kind: add(place, **wanted) for kind, wanted in JOBS.items()}
    while place.worker.work():
        pass
    hashes = {kind: result(place, id) for kind, id in made.items()}
    place.database.close()
    return hashes


@pytest.fixture
def undisturbed(references: dict[str, str]) -> str:
    return references["one training"]


def add(place: Place, **config: Any) -> str:
    return place.add(resnet8(), architecture="cifar/resnet8", dataset=dataset_file(), **config)


def every_step(place: Place) -> Worker:
    """A worker that stores a snapshot after each step."""
    return Worker(place.settings.model_copy(update={"snapshot_seconds": 0}), place.stopping)


@contextmanager
def at(step: int, happens: Callable[[], None]) -> Iterator[None]:
    """Something happens when a training reports a step."""
    real = Reporter.__call__

    def report(self: Reporter, progress: Progress) -> None:
        if progress.step == step:
            happens()
        real(self, progress)

    with patch.object(Reporter, "__call__", report):
        yield


def stop(place: Place, step: int, worker: Worker | None = None) -> None:
    """Works on a job and is told to stop at a step."""
    with at(step, place.stopping.set):
        assert (worker or place.worker).work()
    place.stopping.clear()


def kill(place: Place, step: int) -> None:
    """Works on a job and dies at a step, when the snapshots of all steps before it are stored. The sweep finds the job then."""

    def die() -> None:
        raise Killed

    with one_after_the_other(), at(step, die), pytest.raises(Killed):
        every_step(place).work()
    with place.database.write() as session:
        jobs.sweep(session, now=datetime.now(UTC) + timedelta(hours=1), max_attempts=3)


@contextmanager
def one_after_the_other() -> Iterator[None]:
    """The training waits for each snapshot."""
    real = SnapshotWriter.offer

    def offer(self: SnapshotWriter, steps: int, snapshot: Callable[[], Snapshot]) -> None:
        real(self, steps, snapshot)
        self.close()

    # However long a snapshot takes, the next one is due at once.
    with patch.object(SnapshotWriter, "offer", offer), patch("worker.snapshots.MAX_SHARE", 1.0):
        yield


def result(place: Place, id: str) -> str:
    """The hash of the artefact that a job has made."""
    assert (place.job(id).state, place.job(id).error) == ("succeeded", None)
    with place.database.read() as session:
        return session.get_one(Predictor, place.job(id).predictor_id).sha256


def events(place: Place, id: str, kind: str) -> list[Json]:
    with place.database.read() as session:
        return [event.data for event in jobs.events(session, id, after=0, limit=1000) if event.kind == kind]


def stored(place: Place, id: str) -> list[tuple[int, int]]:
    """Fence and step of each snapshot, by the names of the blobs."""
    folder = place.settings.data_dir / "blobs" / blobs.snapshot_folder(id)
    names = [path.stem.split("-") for path in folder.glob("*")]
    found = sorted((int(fence), int(step)) for fence, step in names)
    with place.database.read() as session:
        assert found == sorted((row.fence, row.step) for row in snapshots.newest_first(session, id))
    return found


def blob(place: Place, id: str, fence: int, step: int) -> Path:
    return place.settings.data_dir / "blobs" / blobs.snapshot(id, fence, step)


@pytest.mark.parametrize(("kind", "wanted"), JOBS.items(), ids=JOBS)
def test_a_job_that_is_stopped_again_and_again_loses_no_step(
    place: Place, references: dict[str, str], kind: str, wanted: dict[str, Any]
) -> None:
    id = add(place, **wanted)
    reported: list[int] = []
    for step in (1, 5, 8, 12):
        stop(place, step)
        job = place.job(id)
        assert (job.state, job.attempt, job.lease_owner) == ("queued", 0, None)
        assert stored(place, id)[-1] == (len(reported) + 1, step)
        assert (job.progress or {}).get("step") == (step if job.progress else None)
        reported.append(step)
    assert place.worker.work()
    assert result(place, id) == references[kind]
    assert [event["step"] for event in events(place, id, "resumed")] == reported
    assert all(event["refused"] == [] for event in events(place, id, "resumed"))
    assert stored(place, id) == []
    assert not (place.settings.data_dir / "blobs" / blobs.snapshot_folder(id)).exists()


def test_a_job_whose_worker_dies_goes_on_from_the_last_snapshot(place: Place, undisturbed: str) -> None:
    id = add(place)
    for step in (4, 7, 11):
        kill(place, step)
        job = place.job(id)
        assert job.progress is not None
        assert (job.state, job.progress["step"], job.fruitless) == ("queued", step - 1, 0)
        assert [kept for _, kept in stored(place, id)] == [step - 2, step - 1]
    assert place.worker.work()
    assert result(place, id) == undisturbed
    assert [event["step"] for event in events(place, id, "resumed")] == [3, 6, 10]
    steps = [event["step"] for event in events(place, id, "progress")]
    assert steps == sorted(steps)


def test_metrics_go_on_from_the_snapshot(place: Place) -> None:
    id = add(place, steps=60, reconstruction_steps=30)
    stop(place, 31)
    before = place.job(id).metrics
    assert before is not None
    assert before["evaluated_at_step"] == 30
    with at(32, place.stopping.set):
        assert place.worker.work()
    after = place.job(id).metrics
    assert after is not None
    assert after["evaluated_at_step"] == 30


@pytest.mark.parametrize("where", ["skeleton_of", "make_report"])
def test_a_finished_training_is_not_repeated_if_its_storing_is_interrupted(place: Place, undisturbed: str, where: str) -> None:
    id = add(place)
    real = getattr(attempt, where)

    def interrupted(*args: Any) -> Any:
        place.stopping.set()
        return real(*args)

    with patch.object(attempt, where, interrupted):
        assert place.worker.work()
    place.stopping.clear()
    assert (place.job(id).state, place.job(id).attempt, stored(place, id)) == ("queued", 0, [(1, 12)])
    with at(12, lambda: pytest.fail("a step was made again")):
        assert place.worker.work()
    assert result(place, id) == undisturbed
    assert [event["step"] for event in events(place, id, "resumed")] == [12]


def test_a_paused_job_goes_on_where_it_was(place: Place) -> None:
    id = add(place, steps=1_000_000)

    def pause() -> None:
        with place.database.write() as session:
            assert jobs.request_pause(session, id, datetime.now(UTC))

    with patch("worker.lease.HEARTBEAT_SECONDS", 0.01), at(5, pause):
        assert place.worker.work()
    assert place.job(id).state == "paused"
    [(_, step)] = stored(place, id)
    assert step >= 5
    with place.database.write() as session:
        assert jobs.resume(session, id, datetime.now(UTC))
    with at(step + 1, place.stopping.set):
        assert place.worker.work()
    place.stopping.clear()
    assert [step for _, step in stored(place, id)] == [step, step + 1]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def turn_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(cut, "another SHA-256"), (turn_a_bit, "another SHA-256"), (Path.unlink, "not in the blob store")],
    ids=["cut", "a bit", "lost"],
)
def test_a_damaged_snapshot_costs_the_steps_since_the_one_before(
    place: Place, undisturbed: str, damage: Callable[[Path], None], reason: str
) -> None:
    id = add(place)
    kill(place, 8)
    damage(blob(place, id, 1, 7))
    assert place.worker.work()
    [resumed] = events(place, id, "resumed")
    assert resumed["step"] == 6
    [refused] = resumed["refused"]
    assert refused["step"] == 7
    assert reason in refused["reason"]
    assert result(place, id) == undisturbed


def test_without_a_snapshot_that_can_be_used_the_training_begins_anew(place: Place, undisturbed: str) -> None:
    id = add(place)
    kill(place, 8)
    for step in (6, 7):
        cut(blob(place, id, 1, step))
    assert place.worker.work()
    [resumed] = events(place, id, "resumed")
    assert (resumed["step"], [each["step"] for each in resumed["refused"]]) == (0, [7, 6])
    assert result(place, id) == undisturbed


def test_a_snapshot_of_another_version_is_refused_with_the_reason(place: Place) -> None:
    id = add(place)
    kill(place, 8)
    with patch("nern.training.snapshot.VERSION", 99):
        assert place.worker.work()
    [resumed] = events(place, id, "resumed")
    assert resumed["step"] == 0
    assert ["reads version 99" in each["reason"] for each in resumed["refused"]] == [True, True]


def test_a_snapshot_of_another_training_is_refused_with_the_reason(place: Place) -> None:
    id = add(place)
    kill(place, 8)
    with place.database.write() as session:
        job = session.get_one(Job, id)
        job.config = job.config | {"seed": 5}
    assert place.worker.work()
    [resumed] = events(place, id, "resumed")
    assert resumed["step"] == 0
    assert ["another training" in each["reason"] for each in resumed["refused"]] == [True, True]


@pytest.mark.parametrize("error", [GenericError("no route to host"), OSError(28, "No space left on device")])
def test_a_training_goes_on_if_its_snapshots_cannot_be_stored(place: Place, error: Exception) -> None:
    id = add(place)
    with patch("obstore.put", side_effect=error):
        assert every_step(place).work()
    assert place.job(id).state == "succeeded"


def test_no_snapshot_goes_to_a_blob_store_that_is_not_mounted(place: Place) -> None:
    id = add(place)
    blob_folder = place.settings.data_dir / "blobs"

    def unmount() -> None:
        (blob_folder / MARK).unlink()
        place.stopping.set()

    with at(5, unmount):
        assert place.worker.work()
    place.stopping.clear()
    assert stored(place, id) == []
    mark(place.database, Blobs(place.settings.blobs))
    assert place.worker.work()
    assert place.job(id).state == "succeeded"


def test_a_blob_store_that_hangs_does_not_hold_a_worker_that_stops(place: Place) -> None:
    id, over = add(place), Event()

    def hang(*_: Any, **__: Any) -> None:
        over.wait(DEADLINE_SECONDS)
        raise GenericError("no route to host")

    with patch("obstore.put", hang), patch("worker.snapshots.END_SECONDS", 0.1):
        stop(place, 5, every_step(place))
        assert (place.job(id).state, place.job(id).attempt) == ("queued", 0)
        over.set()
    assert END_SECONDS <= 4.0, "a worker has ten seconds to end, and waits twice"


def test_a_job_that_is_over_leaves_no_blob_of_a_snapshot_that_was_not_finished(place: Place) -> None:
    id = add(place)
    folder = place.settings.data_dir / "blobs" / blobs.snapshot_folder(id)
    folder.mkdir(parents=True)
    (folder / "1-5.safetensors#1").write_bytes(b"half")
    assert place.worker.work()
    assert not folder.exists()


@pytest.mark.parametrize("from_start", [False, True])
def test_a_cancelled_job_is_retried_from_its_snapshot_or_from_the_start(place: Place, *, from_start: bool) -> None:
    id = add(place)
    kill(place, 8)
    with place.database.write() as session:
        assert jobs.request_cancel(session, id, datetime.now(UTC))
    assert len(stored(place, id)) == 2
    with place.database.write() as session:
        assert jobs.retry(session, id, datetime.now(UTC), from_start=from_start)
    shown = place.job(id).progress
    assert (shown and shown["step"]) == (None if from_start else 7)
    assert place.worker.work()
    assert [event["step"] for event in events(place, id, "resumed")] == ([] if from_start else [7])
    assert place.job(id).state == "succeeded"


@pytest.mark.parametrize(("worked", "pause"), [(0.0, 10.0), (0.1, 10.0), (1.0, 50.0), (2.0, 100.0)])
def test_snapshots_are_ten_seconds_apart_or_take_two_percent_of_the_time(place: Place, worked: float, pause: float) -> None:
    assert moments_of_snapshots(place, (9.9, 10.0, 10.0 + pause - 0.1, 10.0 + pause), worked) == [10.0, 10.0 + pause]


@pytest.mark.parametrize(("worked", "pause"), [(0.0, 1.0), (1.0, 50.0)])
def test_a_snapshot_that_could_not_be_stored_is_followed_by_another_soon(place: Place, worked: float, pause: float) -> None:
    with patch("obstore.put", side_effect=GenericError("no route to host")):
        moments = moments_of_snapshots(place, (10.0, 10.0 + pause - 0.1, 10.0 + pause), worked)
    assert moments == [10.0, 10.0 + pause]


def moments_of_snapshots(place: Place, steps: Sequence[float], worked: float) -> list[float]:
    """The moments at which snapshots are taken. A step ends at each of the given moments; a snapshot is work for `worked` s."""
    add(place)
    with place.database.write() as session:
        lease = jobs.claim(session, holder="worker", now=datetime.now(UTC), lease=timedelta(hours=1))
    assert lease is not None
    snapshot = train(Network(resnet8()), DecoupledRequest(steps=1, hidden=8)).snapshot
    taken: list[float] = []
    now = 0.0

    def take() -> Snapshot:
        taken.append(now)
        return replace(snapshot, steps=len(taken))

    with (
        patch("worker.snapshots.time.monotonic", lambda: now),
        patch("worker.snapshots.time.perf_counter", lambda: 0.0),
        patch("worker.snapshots.time.thread_time", lambda: worked),
    ):
        writer = SnapshotWriter(
            Blobs(place.settings.blobs),
            place.database,
            lease,
            Reporter(place.database, lease, Pulse(place.stopping)),
            seconds=place.settings.snapshot_seconds,
        )
        for step, now in enumerate(steps, start=1):  # noqa: B007 -- the closures read it
            writer.offer(step, take)
            writer.close()
    return taken
