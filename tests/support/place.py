"""A service's state with a worker in this process: a real database and real blobs, without the API."""

import asyncio
from pathlib import Path
from threading import Event
from typing import Any

import torch

from nern.request import DecoupledRequest
from service import blobs
from service.blobs import Blobs
from service.inspection.pool import Inspectors
from service.inspection.process import Task
from service.settings import Settings
from service.store import ids, jobs, migrate
from service.store.database import Database
from service.store.tables import Checkpoint, Dataset, Job
from tests.support.networks import dataset_file, saved
from tests.support.stored import NOW
from worker.run import Worker

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
            architecture=architecture, config=DecoupledRequest(**{**SHORT, **config}).model_dump(mode="json"), notes=[],
            attempt=0, fence=0, cancel_requested=False, created_at=NOW,
        )  # fmt: skip
        with self.database.write() as session:
            session.add_all(rows)
            session.flush()
            jobs.add(session, job)
        return job.id

    def put(self, key: str, content: bytes, kind: Any) -> None:
        source, target = self.settings.data_dir / "in", self.settings.data_dir / "out"
        source.write_bytes(content)
        asyncio.run(Inspectors(0).read(Task(kind, source, target, seconds=60, max_bytes=10**7)))
        asyncio.run(Blobs(self.settings.blobs).put(key, target))

    def job(self, id: str) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, id)
