"""One attempt at a job, from the claim to the stored predictor."""

import hashlib
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Literal

import torch
from sqlalchemy.exc import OperationalError

from nern import artefact, training
from nern.artefact import Artefact
from nern.errors import NernError
from nern.faults import is_device_fault, is_out_of_memory
from nern.graph.onnx_writer import Skeleton
from nern.network import Network
from nern.report import make_report
from nern.request import read_request
from nern.training import Trained
from service.clock import Clock, utc_now
from service.settings import Settings
from service.store import graphs, ids, jobs, predictors
from service.store.blobs import Blobs, Unreachable
from service.store.database import Database
from service.store.failures import FailureType
from service.store.jobs import Lease, LeaseLost
from service.store.tables import Checkpoint, Dataset, Graph, Job, Json, Predictor
from worker.failures import failure_type
from worker.inputs import load_data, load_network
from worker.lease import Cancelled, Paused, Pulse, Stopped, kept_alive
from worker.onnx import skeleton_of
from worker.reporting import Reporter

log = logging.getLogger(__name__)

COPIED_BYTES = 2**20


class DeviceFailed(Exception):
    """The GPU failed. This process can't use the GPU from then on, but another process may be able to."""


class Worker:
    """A worker, one for each process. Its owner id, which is new for each worker, marks its leases."""

    def __init__(self, settings: Settings, stopping: Event, *, clock: Clock = utc_now) -> None:
        self._settings = settings
        self._stopping = stopping
        self._clock = clock
        self._owner = ids.new_id()
        self._database = Database(settings.database)
        self._blobs = Blobs(settings.blobs)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._device = device(settings.device)

    def work(self, prefer: str | None = None) -> bool:
        """Claims one job and works on it until it ends: the job `prefer` if it is queued, or else the oldest queued job.

        Returns False if no job was claimed. Raises DeviceFailed; the sweep returns the job to the queue when its lease has
        expired.
        """
        with self._database.write() as session:
            lease = jobs.claim(
                session,
                owner=self._owner,
                now=self._clock(),
                lease=timedelta(seconds=self._settings.lease_seconds),
                prefer=prefer,
            )
        if lease is None:
            return False
        log.info("job %s: claimed under fence %d", lease.job_id, lease.fence)
        try:
            with kept_alive(self._database, self._settings, lease, self._stopping, self._clock) as pulse:
                self._run(lease, pulse)
        except LeaseLost:
            log.warning("job %s: another worker holds the job, or the job is over; this worker leaves it", lease.job_id)
        except (OperationalError, Unreachable):
            log.exception(
                "job %s: the database or the blob store does not answer; the job is queued again when its lease has expired",
                lease.job_id,
            )
        return True

    def _run(self, lease: Lease, pulse: Pulse) -> None:
        try:
            self._train(lease, pulse)
            log.info("job %s: succeeded", lease.job_id)
        except Cancelled:
            self._finish(lease, "cancelled")
        except (Paused, Stopped) as reason:
            why = "a client has paused it" if isinstance(reason, Paused) else "this worker stops"
            log.info("job %s: given back, because %s", lease.job_id, why)
            with self._database.write() as session:
                jobs.give_back(session, lease, now=self._clock())
        except NernError as error:
            self._finish(lease, "failed", failure_type(error), str(error))
        except FileNotFoundError:
            self._finish(lease, "failed", "input-missing", "the checkpoint or the dataset is not in the blob store")
        except (LeaseLost, OperationalError, Unreachable):
            raise
        except Exception as error:  # a fault in one job must not end the worker
            if is_device_fault(error):
                raise DeviceFailed(f"job {lease.job_id}: {error}") from error
            log.exception("job %s: failed", lease.job_id)
            if is_out_of_memory(error):
                self._finish(lease, "failed", "out-of-memory", "the training needs more memory than the worker has")
            else:
                self._finish(lease, "failed", "internal", "the service has a fault, which the worker has logged")

    def _train(self, lease: Lease, pulse: Pulse) -> None:
        job, checkpoint, graph, dataset = self._read(lease.job_id)
        network = load_network(self._blobs, job, graph)
        reporter = Reporter(self._database, lease, pulse, self._clock)
        trained = training.train(
            network,
            read_request(job.config),
            data=load_data(self._blobs, job, dataset, network),
            inputs_hash=_hash_of_inputs(job, checkpoint, network, dataset),
            device=self._device,
            on_progress=reporter,
            cancellation=pulse.cancellation,
        )
        onnx = skeleton_of(job, graph, network, trained.evaluator)
        self._store(lease, pulse, job, network, trained, onnx, reporter)

    def _store(
        self,
        lease: Lease,
        pulse: Pulse,
        job: Job,
        network: Network,
        trained: Trained,
        onnx: Skeleton | None,
        reporter: Reporter,
    ) -> None:
        """Writes the artefact to a file, makes the report from that file, and stores artefact and report in one transaction."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "artefact.safetensors"
            pieces, nbytes = artefact.write(
                trained.representation, network.state_dict, architecture=job.architecture, onnx=onnx
            )
            hash = hashlib.sha256()
            with path.open("wb") as file:
                for piece in pieces:
                    hash.update(piece)
                    file.write(piece)
            stored = Artefact(lambda start, stop: _slice(path, start, stop))
            predictor = Predictor(
                id=ids.new_id(),
                job_id=job.id,
                checkpoint_id=job.checkpoint_id,
                architecture=job.architecture,
                config=trained.plan.request.model_dump(mode="json"),
                layers=[
                    {"index": index, "name": layer.name, "shape": list(layer.shape), "kernel_size": list(layer.kernel_size)}
                    for index, layer in enumerate(stored.representation.layers)
                ],
                report=make_report(trained, stored, nbytes, network.state_dict, reporter),
                size=nbytes.total,
                sha256=hash.hexdigest(),
                created_at=self._clock(),
            )

            def write() -> None:
                with self._database.write() as session:
                    predictors.add(session, predictor, _pieces(path))
                    jobs.finish(session, lease, "succeeded", now=self._clock(), predictor_id=predictor.id)

            pulse.persist(write)

    def _finish(
        self,
        lease: Lease,
        state: Literal["failed", "cancelled"],
        type: FailureType | None = None,
        detail: str | None = None,
    ) -> None:
        log.info("job %s: %s %s", lease.job_id, state, detail or "")
        error: Json | None = {"type": type, "detail": detail} if type else None
        with self._database.write() as session:
            jobs.finish(session, lease, state, now=self._clock(), error=error)

    def _read(self, job_id: str) -> tuple[Job, Checkpoint, Graph | None, Dataset | None]:
        with self._database.read() as session:
            job = session.get_one(Job, job_id)
            checkpoint = session.get_one(Checkpoint, job.checkpoint_id)
            dataset = session.get_one(Dataset, job.dataset_id) if job.dataset_id else None
            return job, checkpoint, graphs.of(session, checkpoint.id), dataset


def device(setting: str) -> torch.device:
    """The device that a value of `NERN_DEVICE` stands for. Raises SystemExit if this machine has no such device."""
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked = torch.device(setting)
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        raise SystemExit(f"NERN_DEVICE is {setting}, but torch finds {torch.cuda.device_count()} CUDA devices on this machine")
    return asked


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


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(COPIED_BYTES):
            yield piece
