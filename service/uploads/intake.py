"""Taking uploads in: inspect, store the bytes, then write the row that makes them exist."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from nern import architectures, tensorfile
from nern.layers import find_layers
from service import problems
from service.clock import utc_now
from service.inspection.inspect import CheckpointFacts, inspect_checkpoint, inspect_dataset
from service.inspection.pool import Inspectors
from service.settings import Settings
from service.store import blobs, checkpoints, datasets
from service.store.blobs import Blobs
from service.store.database import Database
from service.store.ids import new_id
from service.store.tables import Checkpoint, Dataset

# What networks trained on photographs expect; other images get their own statistics.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Row = TypeVar("Row", Checkpoint, Dataset)


@dataclass(frozen=True)
class Received:
    """A file that has arrived. `folder` is removed with it, and takes what is made of the file."""

    path: Path
    folder: Path
    filename: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Normalisation:
    """What a client says about the inputs of the network: mean and standard deviation of each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Intake:
    """Accepts uploads. Both methods return the row and whether it is new, and raise Problem."""

    def __init__(self, settings: Settings, database: Database, store: Blobs, inspectors: Inspectors) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._inspectors = inspectors

    async def checkpoint(self, file: Received) -> tuple[Checkpoint, bool]:
        """The same bytes are the same checkpoint."""

        def known(session: Session) -> Checkpoint | None:
            return checkpoints.with_hash(session, file.sha256)

        if row := await run_in_threadpool(self._read, known):
            return row, False
        tensors = file.folder / "tensors.safetensors"
        facts = await inspect_checkpoint(self._inspectors, file.path, tensors, seconds=self._settings.inspect_seconds)
        row = await run_in_threadpool(describe, file, facts)
        content = {blobs.checkpoint_file(row.id): file.path, blobs.checkpoint_tensors(row.id): tensors}
        return await self._keep(row, content, known)

    async def dataset(self, file: Received, name: str, given: Normalisation | None) -> tuple[Dataset, bool]:
        """The same bytes with the same normalisation are the same dataset."""
        tensors = file.folder / "tensors.safetensors"
        limits = self._settings
        facts = await inspect_dataset(
            self._inspectors, file.path, tensors, seconds=limits.inspect_seconds, max_bytes=limits.max_upload_bytes
        )
        images, height, width, channels = facts.shape
        if given is None:
            photographs = Normalisation(IMAGENET_MEAN, IMAGENET_STD)
            given = photographs if channels == 3 else Normalisation(facts.mean, facts.std)
        if not len(given.mean) == len(given.std) == channels:
            raise problems.Invalid(
                f"the images have {channels} channels, so mean and std need {channels} numbers each",
                errors=[{"pointer": "query:mean", "detail": f"needs {channels} numbers"}],
            )
        identity = hashlib.sha256(json.dumps([file.sha256, given.mean, given.std]).encode()).hexdigest()

        def known(session: Session) -> Dataset | None:
            return datasets.with_identity(session, identity)

        row = Dataset(
            id=new_id(),
            identity=identity,
            sha256=file.sha256,
            name=name or file.filename,
            size=file.nbytes,
            images=images,
            height=height,
            width=width,
            channels=channels,
            classes=facts.classes,
            mean=list(given.mean),
            std=list(given.std),
            created_at=utc_now(),
        )
        return await self._keep(row, {blobs.dataset_tensors(row.id): tensors}, known)

    async def _keep(self, row: Row, content: dict[str, Path], known: Callable[[Session], Row | None]) -> tuple[Row, bool]:
        """Stores the bytes, then the row; if another upload of the same was faster, its row wins.

        Bytes are taken back unless they may have a row, which would be worth nothing without them.
        """
        try:
            for key, path in content.items():
                await self._store.put(key, path)
        except BaseException:
            await self._discard(content)
            raise
        try:
            kept = await run_in_threadpool(self._add, row, known)
        except Exception:
            # A row may be committed although its connection breaks before anybody hears of it.
            found = await run_in_threadpool(self._read, known)
            if found is None or found.id != row.id:
                await self._discard(content)
            raise
        if kept is not row:
            await self._discard(content)
        return kept, kept is row

    async def _discard(self, keys: Iterable[str]) -> None:
        for key in keys:
            await self._store.delete(key)

    def _add(self, row: Row, known: Callable[[Session], Row | None]) -> Row:
        try:
            with self._database.write() as session:
                if earlier := known(session):
                    return earlier
                session.add(row)
                return row
        except IntegrityError:
            with self._database.read() as session:
                if earlier := known(session):
                    return earlier
            raise

    def _read(self, query: Callable[[Session], Row | None]) -> Row | None:
        with self._database.read() as session:
            return query(session)


def describe(file: Received, facts: CheckpointFacts) -> Checkpoint:
    """The row of a new checkpoint."""
    shapes = architectures.shapes_of(facts.state_dict)
    candidates = architectures.recognise(shapes)
    architecture = candidates[0] if len(candidates) == 1 else None
    groups = architectures.groups(architecture, shapes) if architecture else {}
    layers = find_layers(facts.state_dict)
    represented = {layer.name for layer in layers}
    return Checkpoint(
        id=new_id(),
        sha256=file.sha256,
        filename=file.filename,
        size=file.nbytes,
        format=facts.format,
        architecture=architecture,
        candidates=candidates,
        layers=[
            {
                "index": index,
                "name": layer.name,
                "shape": list(layer.shape),
                "kernels": layer.kernels,
                "groups": groups.get(layer.name),
            }
            for index, layer in enumerate(layers)
        ],
        kept=[
            {"name": name, "shape": list(tensor.shape), "dtype": tensorfile.NAMES[tensor.dtype]}
            for name, tensor in facts.state_dict.items()
            if name not in represented
        ],
        weights=sum(layer.weights for layer in layers),
        parameters=sum(tensor.numel() for tensor in facts.state_dict.values()),
        created_at=utc_now(),
    )
