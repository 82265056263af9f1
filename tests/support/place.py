"""The state of a service without its API: a real database, real blobs, and a worker in this process."""

import asyncio
from pathlib import Path
from threading import Event
from typing import Any

import torch

from nern.request import DecoupledRequest
from service.inspection.pool import Inspectors
from service.inspection.process import Task
from service.settings import Settings
from service.store import blobs, jobs
from service.store.blobs import Blobs
from service.store.database import Database
from service.store.marking import mark
from service.store.tables import Job
from tests.support import migrated, rows
from tests.support.networks import dataset_file, saved
from tests.support.waiting import DEADLINE_SECONDS
from worker.run import Worker

SHORT = {"steps": 12, "hidden": 8, "image_batch": 4}


class Place:
    """The state of a service, in a folder, and a worker for its jobs. `database_url`: a migrated database to use."""

    def __init__(self, folder: Path, database_url: str | None = None) -> None:
        self.settings = Settings(data_dir=folder, database_url=database_url, lease_seconds=5, threads=1)
        folder.mkdir()
        self.database = Database(database_url) if database_url else migrated.sqlite(self.settings.database)
        mark(self.database, Blobs(self.settings.blobs))
        self.stopping = Event()
        self.worker = Worker(self.settings, self.stopping)

    def close(self) -> None:
        """Closes the connections to the database."""
        self.database.close()
        self.worker._database.close()

    def add(
        self,
        state_dict: dict[str, torch.Tensor],
        *,
        architecture: str | None,
        dataset: bytes | None = None,
        noise: str | None = None,
        described: dict[str, Any] | None = None,
        **config: Any,
    ) -> str:
        """Adds a queued job for a network, with checkpoint and dataset, as the API would. Returns the id of the job.

        `described` has columns of the dataset's row that are not those of images.
        """
        checkpoint = rows.checkpoint(architecture=architecture)
        self.put(blobs.checkpoint_tensors(checkpoint.id), saved(state_dict), "checkpoint")
        columns = {"channels": 1 if dataset == dataset_file(channels=1) else 3} | (described or {})
        images = rows.dataset(**columns) if dataset else None
        if dataset and images:
            self.put(blobs.dataset_tensors(images.id), dataset, "dataset")
        job = rows.job(
            checkpoint.id,
            dataset_id=images.id if images else None,
            noise=noise,
            architecture=architecture,
            config=DecoupledRequest(**{**SHORT, **config}).model_dump(mode="json"),
        )
        with self.database.write() as session:
            session.add_all([checkpoint, *([images] if images else [])])
            session.flush()
            jobs.add(session, job)
        return job.id

    def put(self, key: str, content: bytes, kind: Any) -> None:
        """Inspects an uploaded file, and stores the tensors that were read out of it under a key."""
        source, target = self.settings.data_dir / "in", self.settings.data_dir / "out"
        source.write_bytes(content)
        asyncio.run(Inspectors(0).read(Task(kind, source, target, seconds=DEADLINE_SECONDS, max_bytes=10**7)))
        asyncio.run(Blobs(self.settings.blobs).put(key, target))

    def job(self, id: str) -> Job:
        """The job of this id."""
        with self.database.read() as session:
            return session.get_one(Job, id)
