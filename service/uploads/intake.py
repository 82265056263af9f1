"""From a received file to a checkpoint or a dataset: the file is inspected, its bytes are stored, then its row is written."""

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
from service.inspection.recognition import validate_filename
from service.inspection.refusal import Refusal
from service.settings import Settings
from service.store import blobs, checkpoints, datasets
from service.store.blobs import Blobs
from service.store.database import Database
from service.store.ids import new_id
from service.store.tables import Checkpoint, Dataset

# Networks that were trained on ImageNet expect this normalisation. It is the default for images of three channels.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Row = TypeVar("Row", Checkpoint, Dataset)


@dataclass(frozen=True)
class Received:
    """A file that has arrived completely.

    `path` is the file in the temporary folder `folder`, where files that are made from it are written too. `filename` is the
    name that the client gave. `sha256` is the hash of the file in hexadecimal digits.
    """

    path: Path
    folder: Path
    filename: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, for pixels scaled to 0..1. A network's input is (pixel - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Intake:
    """Makes checkpoints and datasets of received files.

    Both methods return the row and whether the row is new. Both raise Problem.
    """

    def __init__(self, settings: Settings, database: Database, store: Blobs, inspectors: Inspectors) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._inspectors = inspectors

    async def checkpoint(self, file: Received) -> tuple[Checkpoint, bool]:
        """The checkpoint of a file. A file whose bytes are known already gives the checkpoint that exists."""

        def known(session: Session) -> Checkpoint | None:
            return checkpoints.with_hash(session, file.sha256)

        if row := await run_in_threadpool(self._read, known):
            return row, False
        try:
            validate_filename(file.filename)
        except Refusal as refusal:
            raise problems.KINDS[refusal.slug](refusal.detail) from None
        tensors = file.folder / "tensors.safetensors"
        facts = await inspect_checkpoint(self._inspectors, file.path, tensors, seconds=self._settings.inspect_seconds)
        row = await run_in_threadpool(describe, file, facts)
        content = {blobs.checkpoint_file(row.id): file.path, blobs.checkpoint_tensors(row.id): tensors}
        return await self._keep(row, content, known)

    async def dataset(self, file: Received, name: str, given: Normalisation | None) -> tuple[Dataset, bool]:
        """The dataset of a file. A file that is known already with the same normalisation gives the dataset that exists.

        Without a normalisation, images of three channels get ImageNet's, and other images get their own mean and std.
        """
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
                f"the images have {channels} channels, so mean and std must have {channels} numbers each",
                errors=[{"pointer": "query:mean", "detail": f"mean and std must have {channels} numbers each"}],
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
        """Stores the files `content` as blobs by key, then the row. Returns the row that exists then, and whether it is `row`.

        If another upload of the same file was faster, the other row is returned. The blobs are deleted if `row` does not
        exist in the end. They stay if `row` may exist, because a row is useless without its blobs.
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
            # The database may have committed the row although the connection broke before it said so.
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
    """The row of a new checkpoint, with the architecture that its names and shapes match."""
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
