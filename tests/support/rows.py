"""Rows of the tables. Each function takes the values that matter to a test, and makes up the others."""

from datetime import UTC, datetime
from typing import Any

from service.store import ids
from service.store.tables import Checkpoint, Dataset, Job, Json, Predictor

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def checkpoint(**values: Any) -> Checkpoint:
    """A checkpoint with a hash of its own, and with a file whose size needs more than 32 bits."""
    made: Json = {
        "id": ids.new_id(), "sha256": ids.new_id(), "filename": "a.pt", "size": 5_000_000_000, "format": "torch-zip",
        "architecture": None, "candidates": [], "layers": [], "kept": [], "weights": 1, "parameters": 1, "created_at": NOW,
        "key": ".", "first": True,
    }  # fmt: skip
    return Checkpoint(**{**made, **values})


def dataset(*, channels: int | None = 3, **values: Any) -> Dataset:
    """A dataset of 40 labelled images of 8 x 8 pixels, like the one that `tests.support.networks.dataset_file` makes."""
    made: Json = {
        "id": ids.new_id(), "identity": ids.new_id(), "sha256": "", "name": "d", "size": 1,
        "kind": "images", "inputs": [{"name": "images", "dtype": "U8", "shape": [40, 8, 8, channels]}],
        "labels": {"kind": "classes", "dtype": "I64", "shape": [40]}, "class_names": None, "notes": [],
        "images": 40, "height": 8, "width": 8, "channels": channels, "classes": 10,
        "mean": [0.5] * (channels or 0), "std": [0.5] * (channels or 0), "created_at": NOW,
    }  # fmt: skip
    return Dataset(**{**made, **values})


def job(checkpoint_id: str, **values: Any) -> Job:
    """A queued job."""
    made: Json = {
        "id": ids.new_id(), "state": "queued", "checkpoint_id": checkpoint_id, "config": {}, "notes": [], "attempt": 0,
        "fence": 0, "cancel_requested": False, "created_at": NOW,
    }  # fmt: skip
    return Job(**{**made, **values})


def predictor(of: Job, **values: Any) -> Predictor:
    """The predictor of a job."""
    made: Json = {
        "id": ids.new_id(), "job_id": of.id, "checkpoint_id": of.checkpoint_id, "architecture": of.architecture, "config": {},
        "layers": [], "report": {}, "size": 1, "sha256": "", "created_at": NOW,
    }  # fmt: skip
    return Predictor(**{**made, **values})
