"""From a received file to a checkpoint or a dataset: the file is inspected, its bytes are stored, then its row is written."""

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from nern import architectures, tensorfile
from nern.facts import GRAPH, NetworkFacts
from nern.forms import form_notes
from nern.graph.facts import facts as graph_facts
from nern.graph.program import Program
from nern.graph.proposal import propose
from nern.layers import layout_notes
from service import problems
from service.access.limits import check_bytes
from service.clock import utc_now
from service.inspection.companions import lone_part
from service.inspection.inspect import CheckpointFacts, DatasetFacts, inspect_checkpoint, inspect_dataset
from service.inspection.pool import Inspectors
from service.settings import Settings
from service.store import blobs, checkpoints, datasets
from service.store.blobs import Blobs
from service.store.database import Database
from service.store.ids import new_id
from service.store.marking import mark
from service.store.tables import Checkpoint, Dataset, Graph, Json

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


# From the id of a row to the key of a blob.
KeyOf = Callable[[str], str]

CHECKPOINT_BLOBS: tuple[KeyOf, ...] = (blobs.checkpoint_file, blobs.checkpoint_tensors)


class Intake:
    """Makes checkpoints and datasets of received files.

    Both methods return the row and whether the row is new. Both raise Problem.
    """

    def __init__(self, settings: Settings, database: Database, store: Blobs, inspectors: Inspectors) -> None:
        self._settings = settings
        self._database = self._whole_database = database
        self._store = store
        self._inspectors = inspectors

    def of(self, owner: str) -> "Intake":
        """The intake that makes checkpoints and datasets of an owner."""
        bound = copy.copy(self)
        bound._database = self._database.of(owner)
        return bound

    async def checkpoint(self, file: Received, key: str = "") -> tuple[Checkpoint, bool]:
        """The checkpoint of a file. `key` names one of several state_dicts in it.

        A file whose bytes are known already with the same state_dict gives the checkpoint that exists.
        """
        if alone := lone_part(file.filename):
            raise problems.LoneShard(alone)
        known_row = await run_in_threadpool(self._whole, file.sha256, key or None)
        if known_row:
            return known_row, False
        tensors = file.folder / "tensors.safetensors"
        seconds = self._settings.inspect_seconds
        facts = await inspect_checkpoint(self._inspectors, file.path, tensors, seconds=seconds, key=key)

        def known(session: Session) -> Checkpoint | None:
            return checkpoints.with_hash(session, file.sha256, None if facts.first else facts.key)

        row = await run_in_threadpool(describe, file, facts)
        content = dict(zip(CHECKPOINT_BLOBS, (file.path, tensors), strict=True))
        return await self._keep(row, content, known, graph_of(row, facts))

    async def graph(self, file: Received, checkpoint: Checkpoint) -> Graph:
        """The graph in a file, for a checkpoint that was uploaded before. The tensors in the file are not used."""
        scratch = file.folder / "tensors.safetensors"
        facts = await inspect_checkpoint(self._inspectors, file.path, scratch, seconds=self._settings.inspect_seconds)
        if (graph := graph_of(checkpoint, facts)) is None:
            raise problems.UnsupportedGraph("the file holds no graph; send an ONNX file, or a .pt2 file of torch.export")
        validate_tensors(checkpoint, facts)
        return graph

    async def dataset(
        self, file: Received, name: str, given: Normalisation | None, size: tuple[int, int] | None = None
    ) -> tuple[Dataset, bool]:
        """The dataset of a file. A file that is known already, with the same normalisation and size, gives the one that exists.

        Without a normalisation, images of three channels get ImageNet's, and other images get their own mean and std. `size` is
        the height and width that the images of a zip archive are brought to.
        """
        tensors = file.folder / "tensors.safetensors"
        limits = self._settings
        facts = await inspect_dataset(
            self._inspectors, file.path, tensors, seconds=limits.inspect_seconds, max_bytes=limits.max_upload_bytes, size=size
        )
        normalisation = normalise(facts, given)
        mean, std = (normalisation.mean, normalisation.std) if normalisation else (None, None)
        made_from = [file.sha256, mean, std, *([size] if size else [])]
        identity = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()

        def known(session: Session) -> Dataset | None:
            return datasets.with_identity(session, identity)

        row = describe_dataset(file, name, facts, normalisation, identity)
        if normalisation and given is None:
            row.notes = [*(row.notes or []), _note_on_default(normalisation)]
        return await self._keep(row, {blobs.dataset_tensors: tensors}, known)

    async def _keep(
        self, row: Row, content: Mapping[KeyOf, Path], known: Callable[[Session], Row | None], graph: Graph | None = None
    ) -> tuple[Row, bool]:
        """Stores the files `content` as blobs, by the keys for the id of the row, then the row, and its graph if there is one.

        Returns the row that exists then, and whether it is `row`.

        If another upload of the same file was faster, the other row is returned. If blobs of the other row are lost, the files
        take their place. The blobs are deleted if `row` does not exist in the end. They stay if `row` may exist, because a row
        is useless without its blobs. Raises WrongBlobStore for a blob store that is not that of the database.
        """
        await run_in_threadpool(mark, self._whole_database, self._store)
        if (earlier := await run_in_threadpool(self._read, known)) is not None:
            await self._heal(earlier.id, content)
            return earlier, False
        stored = [key_of(row.id) for key_of in content]
        try:
            for key_of, path in content.items():
                await self._store.put(key_of(row.id), path)
        except BaseException:
            await self._discard(stored)
            raise
        try:
            kept = await run_in_threadpool(self._add, row, known, graph)
        except Exception:
            # The database may have committed the row although the connection broke before it said so.
            found = await run_in_threadpool(self._read, known)
            if found is None or found.id != row.id:
                await self._discard(stored)
            raise
        if kept is not row:
            await self._discard(stored)
        return kept, kept is row

    async def _heal(self, id: str, content: Mapping[KeyOf, Path]) -> None:
        """Stores the files whose blobs are lost."""
        for key_of, path in content.items():
            if not await run_in_threadpool(self._store.has, key_of(id)):
                await self._store.put(key_of(id), path)

    def _whole(self, sha256: str, key: str | None) -> Checkpoint | None:
        """The checkpoint of a hash and a key, if all of its blobs are there."""
        with self._database.read() as session:
            row = checkpoints.with_hash(session, sha256, key)
        return row if row and all(self._store.has(key_of(row.id)) for key_of in CHECKPOINT_BLOBS) else None

    async def _discard(self, keys: Iterable[str]) -> None:
        for key in keys:
            await self._store.delete(key)

    def _add(self, row: Row, known: Callable[[Session], Row | None], graph: Graph | None) -> Row:
        try:
            with self._database.write() as session:
                if earlier := known(session):
                    return earlier
                check_bytes(session, self._settings, row.size)
                session.add_all([row] if graph is None else [row, graph])
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
    """The row of a new checkpoint: its graph, or else the architecture that its names and shapes match."""
    shapes = architectures.shapes_of(NetworkFacts(facts.state_dict, None, aliases=facts.aliases).formless)
    candidates = architectures.recognise(shapes)
    architecture = candidates[0] if len(candidates) == 1 else None
    program = Program.from_json(facts.program) if facts.program else None
    network = NetworkFacts(facts.state_dict, GRAPH if program else architecture, program, facts.aliases)
    layers = network.convolutions
    represented = {layer.name for layer in layers}
    places = {name: place for place, name in enumerate(network.own)}
    match = architectures.match(architecture, shapes) if architecture else None
    groups = match.groups if match else {}
    row = Checkpoint(
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
                "dtype": tensorfile.NAMES[layer.dtype],
                "place": places[layer.name],
            }
            for index, layer in enumerate(layers)
        ],
        kept=[
            {"name": name, "shape": list(tensor.shape), "dtype": tensorfile.NAMES[tensor.dtype]}
            for name, tensor in network.own.items()
            if name not in represented
        ],
        weights=sum(layer.weights for layer in layers),
        parameters=sum(math.prod(tensor.shape) for tensor in network.stored.values()),
        created_at=utc_now(),
        key=facts.key,
        first=facts.first,
        choice={
            "keys": facts.keys,
            "notes": [
                *facts.notes,
                *layout_notes(layers),
                *form_notes([form for form in network.forms if form.weight in represented]),
                *_architecture_notes(candidates, match, shapes, facts),
            ],
            "aliases": facts.aliases,
            "sequential": None if architecture else propose(architectures.shapes_of(network.plain)),
            "forms": [form.to_json() for form in network.forms],
        },
    )
    return with_graph(row, facts.program) if facts.program else row


def _architecture_notes(
    candidates: list[str], match: architectures.Match | None, shapes: Mapping[str, architectures.Shape], facts: CheckpointFacts
) -> list[str]:
    """What was assumed about the architecture, or how far the nearest one is."""
    if match is not None:
        return match.notes
    if candidates:
        return [f"several architectures have these names and shapes; name one in the job: {', '.join(candidates)}"]
    near = None if facts.program else architectures.nearest(shapes)
    return [f"no architecture fits; the nearest is {near[0]}: {near[1]}"] if near else []


def with_graph(row: Checkpoint, program: Json) -> Checkpoint:
    """The row of a checkpoint, changed to that of a checkpoint with this graph."""
    shapes = _own_shapes(row)
    facts = graph_facts(Program.from_json(program), shapes)
    groups = {convolution.weight: convolution.groups for convolution in facts.convolutions}
    row.architecture = GRAPH
    row.layers = [{**layer, "groups": groups.get(layer["name"], layer["groups"])} for layer in row.layers]
    row.ports = {ends: program[ends] for ends in ("inputs", "outputs")}
    return row


def graph_of(checkpoint: Checkpoint, facts: CheckpointFacts) -> Graph | None:
    """The row of the graph that was found in a file, or None if the file holds no graph.

    An ONNX file with tensors that the checkpoint does not have can't be written again, so its skeleton is not kept.
    """
    if facts.program is None:
        return None
    skeleton = facts.skeleton if facts.state_dict.keys() <= shapes_in(checkpoint).keys() else None
    return Graph(
        checkpoint_id=checkpoint.id,
        program=facts.program,
        skeleton=skeleton,
        initialisers=list(facts.state_dict) if skeleton else None,
        created_at=utc_now(),
    )


def shapes_in(checkpoint: Checkpoint) -> dict[str, list[int]]:
    """The shapes of all tensors of a checkpoint, and of weights that are computed from them, by name."""
    own = _own_shapes(checkpoint)
    return own | {alias: own[name] for alias, name in checkpoint.aliases.items()}


def _own_shapes(checkpoint: Checkpoint) -> dict[str, list[int]]:
    """The same without aliases."""
    parts = {name: list(shape) for form in checkpoint.forms for name, shape in zip(form["parts"], form["shapes"], strict=True)}
    return {tensor["name"]: tensor["shape"] for tensor in [*checkpoint.layers, *checkpoint.kept]} | parts


def validate_tensors(checkpoint: Checkpoint, facts: CheckpointFacts) -> None:
    """Raises UnsupportedGraph unless the checkpoint has every tensor that the graph takes, in the same shape."""
    own = shapes_in(checkpoint)
    assert facts.program is not None
    for name in facts.program["tensors"].values():
        shape = list(facts.state_dict[name].shape)
        if name not in own:
            raise problems.UnsupportedGraph(f"the graph takes the tensor {name!r}, which the checkpoint does not have")
        if own[name] != shape:
            raise problems.UnsupportedGraph(f"{name!r} has the shape {shape} in the graph and {own[name]} in the checkpoint")


def normalise(facts: DatasetFacts, given: Normalisation | None) -> Normalisation | None:
    """The normalisation of a dataset: the given one, or the default. None for inputs, which are not normalised.

    Raises Invalid if the given one does not fit.
    """
    if facts.mean is None or facts.std is None:
        if given:
            detail = "the file holds inputs and not images; inputs reach the network as they are, so leave mean and std out"
            raise problems.Invalid(detail, errors=[{"pointer": "query:mean", "detail": detail}])
        return None
    channels = len(facts.mean)
    if given is None:
        return Normalisation(IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else Normalisation(facts.mean, facts.std)
    if not len(given.mean) == len(given.std) == channels:
        raise problems.Invalid(
            f"the images have {channels} channels, so mean and std must have {channels} numbers each",
            errors=[{"pointer": "query:mean", "detail": f"mean and std must have {channels} numbers each"}],
        )
    return given


def _note_on_default(normalisation: Normalisation) -> str:
    numbers = "; ".join(",".join(f"{value:.4g}" for value in values) for values in (normalisation.mean, normalisation.std))
    whose = "ImageNet's" if normalisation.mean == IMAGENET_MEAN else "those of the images"
    return (
        f"No mean and std were given, so {whose} were taken ({numbers}). If the network was trained with others, upload the "
        "images with ?mean= and ?std=: its accuracy depends on them."
    )


def describe_dataset(
    file: Received, name: str, facts: DatasetFacts, normalisation: Normalisation | None, identity: str
) -> Dataset:
    """The row of a new dataset."""
    labels = [array for name, array in facts.tensors.items() if name in ("labels", "targets")]
    inputs = [
        {"name": name.removeprefix("inputs."), "dtype": dtype, "shape": shape}
        for name, (dtype, shape) in facts.tensors.items()
        if name not in ("labels", "targets")
    ]
    images, height, width, channels = facts.tensors["images"][1] if facts.kind == "images" else [None] * 4
    return Dataset(
        id=new_id(),
        identity=identity,
        sha256=file.sha256,
        name=name or file.filename,
        size=file.nbytes,
        kind=facts.kind,
        inputs=inputs,
        labels={"kind": facts.labels, "dtype": labels[0][0], "shape": labels[0][1]} if labels else None,
        class_names=facts.class_names,
        notes=facts.notes,
        images=images,
        height=height,
        width=width,
        channels=channels,
        classes=facts.classes,
        mean=list(normalisation.mean) if normalisation else None,
        std=list(normalisation.std) if normalisation else None,
        created_at=utc_now(),
    )
