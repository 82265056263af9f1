"""One attempt at a job, from its inputs to the stored predictor."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from nern import artefact, training
from nern.artefact import Artefact
from nern.errors import BadSnapshot, OtherTraining
from nern.graph.onnx_writer import Skeleton
from nern.network import Network
from nern.report import make_report
from nern.request import read_request
from nern.spans import span
from nern.training import Interrupted, Progress, Snapshot, Trained
from service.settings import Settings
from service.store import blobs, graphs, ids, jobs, predictors, snapshots
from service.store.blobs import Blobs, Unreachable
from service.store.database import Database, now
from service.store.jobs import Lease
from service.store.tables import Checkpoint, Dataset, Graph, Job, JobSnapshot, Json, Predictor
from worker.inputs import load_data, load_network
from worker.lease import Pulse
from worker.onnx import skeleton_of
from worker.reporting import Reporter
from worker.snapshots import SnapshotWriter, read_snapshot

log = logging.getLogger(__name__)

COPIED_BYTES = 2**20


class Attempt:
    """An attempt under a lease. It goes on from the newest snapshot of the job that can be used."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: Blobs,
        device: torch.device,
        lease: Lease,
        pulse: Pulse,
    ) -> None:
        self._database = database
        self._blobs = store
        self._device = device
        self._lease = lease
        self._pulse = pulse
        self._reporter = Reporter(database, lease, pulse)
        self._writer = SnapshotWriter(store, database, lease, self._reporter, seconds=settings.snapshot_seconds)

    def run(self) -> None:
        """Trains a predictor and stores it, which ends the job.

        Raises Interrupted, after a snapshot of the last step was stored; LeaseLost, NernError, Missing, Unreachable
        and Away.
        """
        trained: Trained | None = None
        try:
            with span("load inputs"):
                job, checkpoint, graph, dataset, stored = self._read()
                network = load_network(self._blobs, job, graph, self._pulse.cancellation)
                data = load_data(self._blobs, job, dataset, network, self._pulse.cancellation)

            def train(snapshot: Snapshot | None) -> Trained:
                return training.train(
                    network,
                    read_request(job.config),
                    data=data,
                    inputs_hash=_hash_of_inputs(job, checkpoint, network, dataset),
                    device=self._device,
                    on_progress=self._after_step,
                    cancellation=self._pulse.cancellation,
                    snapshot=snapshot,
                )

            trained = self._resume(stored, train)
            with span("store predictor"):
                self._store(job, network, trained, skeleton_of(job, graph, network, trained.evaluator))
        except Interrupted as interruption:
            if snapshot := trained.snapshot if trained else interruption.snapshot:
                self._writer.write(snapshot)
            raise
        try:
            self._blobs.remove_folder(blobs.snapshot_folder(self._lease.job_id))
        except Unreachable:
            log.warning("the snapshots of the job are removed later", exc_info=True)

    def _resume(self, stored: Sequence[JobSnapshot], train: Callable[[Snapshot | None], Trained]) -> Trained:
        """Trains from the first of the stored snapshots that can be used, or else from the first step."""
        refused: list[Json] = []
        for row in (*stored, None):
            try:
                snapshot = read_snapshot(self._blobs, row) if row else None
                if stored:
                    self._reporter.resume(row, refused)
                self._writer.step = row.step if row else 0
                trained = train(snapshot)
            except (BadSnapshot, OtherTraining) as error:
                assert row is not None, "only a snapshot raises these"
                refused.append({"step": row.step, "reason": str(error)})
            else:
                self._reporter.finish_resumption()
                return trained
        raise AssertionError("unreachable: the last attempt is one without a snapshot")

    def _after_step(self, progress: Progress) -> None:
        self._reporter(progress)
        self._writer.offer(progress.step, progress.snapshot)

    def _store(self, job: Job, network: Network, trained: Trained, onnx: Skeleton | None) -> None:
        """Writes the artefact to a file, makes the report from that file, and stores artefact and report in one transaction."""

        def after_measurement(progress: Progress) -> None:
            self._reporter(progress)
            self._writer.offer(trained.snapshot.steps, lambda: trained.snapshot)

        with TemporaryDirectory() as folder:
            path = Path(folder) / "artefact.safetensors"
            pieces, nbytes = artefact.write(
                trained.representation, network.state_dict, architecture=job.architecture, onnx=onnx
            )
            hash = hashlib.sha256()
            with path.open("wb") as file:
                for piece in pieces:
                    self._pulse.cancellation()
                    hash.update(piece)
                    file.write(piece)
            stored = Artefact(lambda start, stop: _slice(path, start, stop))
            predictor = Predictor(
                id=ids.new_id(),
                owner=job.owner,
                job_id=job.id,
                checkpoint_id=job.checkpoint_id,
                architecture=job.architecture,
                config=trained.plan.request.model_dump(mode="json"),
                layers=[
                    {"index": index, "name": layer.name, "shape": list(layer.shape), "kernel_size": list(layer.kernel_size)}
                    for index, layer in enumerate(stored.representation.layers)
                ],
                report=make_report(trained, stored, nbytes, network.state_dict, after_measurement),
                size=nbytes.total,
                sha256=hash.hexdigest(),
            )
            self._writer.close()

            def write() -> None:
                with self._database.write() as session:
                    predictor.created_at = now(session)
                    predictors.add(session, predictor, self._pieces(path))
                    jobs.finish(session, self._lease, "succeeded", now=now(session), predictor_id=predictor.id)
                    snapshots.forget(session, job.id)

            self._pulse.persist(write)

    def _read(self) -> tuple[Job, Checkpoint, Graph | None, Dataset | None, Sequence[JobSnapshot]]:
        with self._database.read() as session:
            job = session.get_one(Job, self._lease.job_id)
            checkpoint = session.get_one(Checkpoint, job.checkpoint_id)
            dataset = session.get_one(Dataset, job.dataset_id) if job.dataset_id else None
            return job, checkpoint, graphs.of(session, checkpoint.id), dataset, snapshots.newest_first(session, job.id)

    def _pieces(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(COPIED_BYTES):
                self._pulse.cancellation()
                yield piece


def _hash_of_inputs(job: Job, checkpoint: Checkpoint, network: Network, dataset: Dataset | None) -> str:
    """A text that names the network and the data of a training, from hashes that exist already."""
    named = [checkpoint.sha256, job.architecture, dataset.identity if dataset else job.noise]
    if checkpoint.key:
        named.append(checkpoint.key)
    if network.facts.program is not None:
        named.append(hashlib.sha256(json.dumps(network.facts.program.to_json()).encode()).hexdigest())
    return " ".join(map(str, named))


def _slice(path: Path, start: int, stop: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)
