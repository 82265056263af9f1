"""Files that are made or read from any offset."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import safetensors.torch
import torch

from nern.layers import StateDict
from nern.rendering import render_block
from service.http.sources import Source
from service.serving.artefact import ArtefactFile
from service.serving.network import NetworkFile
from service.serving.predictors import Predictors
from service.serving.tensors import Tensors
from service.serving.uploaded import UploadedFile
from service.store import migrate, predictors
from service.store.blobs import Blobs
from service.store.database import Database
from tests.support.forms import CASES, made
from tests.support.networks import odd, resnet8
from tests.support.stored import store_predictor


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'test.sqlite3'}")
    migrate.upgrade(database)
    yield database
    database.close()


def network(database: Database, state_dict: StateDict) -> NetworkFile:
    return NetworkFile(Tensors(Predictors(database).load(store_predictor(database, state_dict))), "tag")


def artefact(database: Database, state_dict: StateDict) -> ArtefactFile:
    id = store_predictor(database, state_dict)
    with database.read() as session:
        row = predictors.get(session, id)
        assert row is not None
        return ArtefactFile(database, id, row.size, row.sha256)


def uploaded(folder: Path, content: bytes) -> UploadedFile:
    blobs = Blobs((folder / "blobs").as_uri())
    (folder / "file").write_bytes(content)
    asyncio.run(blobs.put("a/b", folder / "file"))
    return UploadedFile(blobs, "a/b", len(content), "tag")


def mixed() -> StateDict:
    """Kernels of many sizes in several blocks, tiles that overhang, two dtypes, and kept tensors, one without elements."""
    state_dict = {name: t.half() if name in ("stem.weight", "wide_point.weight") else t for name, t in odd().items()}
    blocks = {"overhanging.weight": torch.randn(200, 20, 1, 1), "grid.weight": torch.randn(30, 40, 3, 3).half()}
    blocks["long.weight"] = torch.randn(12, 7, 251)
    return {**state_dict, **blocks, "empty": torch.empty(0), "large": torch.arange(700_000.0)}


def ranges(source: Source, count: int) -> Iterator[tuple[int, int]]:
    chance = random.Random(0)  # noqa: S311
    yield from [(0, 0), (source.nbytes, source.nbytes), (0, 1), (source.nbytes - 1, source.nbytes), (5, 5)]
    for _ in range(count):
        # As often in the rebuilt tensors, which are few bytes, as in all of the file.
        start = chance.randrange(chance.choice([source.nbytes, 50_000]))
        length = int(2 ** chance.uniform(0, 21))
        yield start, min(source.nbytes, start + length)


@pytest.mark.parametrize("kind", ["network", "artefact", "uploaded"])
def test_any_range_is_that_of_the_whole(database: Database, tmp_path: Path, kind: str) -> None:
    source: Source
    if kind == "network":
        source = network(database, mixed())
    elif kind == "artefact":
        source = artefact(database, mixed())
    else:
        source = uploaded(tmp_path, random.Random(1).randbytes(2_500_000))  # noqa: S311
    whole = b"".join(source.read(0, source.nbytes))
    assert len(whole) == source.nbytes > 2**21
    for start, stop in ranges(source, 200):
        assert b"".join(source.read(start, stop)) == whole[start:stop], (start, stop)


def test_a_kernel_that_is_too_long_for_a_tile_is_the_same_alone_and_in_the_network(database: Database) -> None:
    served = Predictors(database).load(store_predictor(database, {"long.weight": torch.randn(40, 7, 251)}))
    whole = safetensors.torch.load(b"".join((source := NetworkFile(Tensors(served), "tag")).read(0, source.nbytes)))[
        "long.weight"
    ]
    indices = torch.tensor([0, 279, 31, 32])
    assert torch.equal(served.kernels(0, indices), whole.flatten(0, 1)[indices])
    assert torch.equal(whole, served.artefact.state_dict()["long.weight"])


def test_tied_weights_are_written_under_each_name(database: Database) -> None:
    tied = torch.randn(4, 4, 3, 3)
    state_dict = {"a.weight": tied, "b.weight": tied, "c": torch.arange(5)}
    file = network(database, state_dict)
    whole = b"".join(file.read(0, file.nbytes))
    tensors = safetensors.torch.load(whole)
    assert tensors.keys() == state_dict.keys()
    assert torch.equal(tensors["a.weight"], tensors["b.weight"])
    assert all(b"".join(file.read(start, start + 99)) == whole[start : start + 99] for start in range(0, file.nbytes, 50))


@pytest.mark.parametrize("form", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_layer_comes_back_in_its_form_with_the_bits_of_its_kernels(database: Database, form: str, dtype: torch.dtype) -> None:
    network = torch.nn.ModuleDict({"a": torch.nn.Conv2d(3, 4, 3), "b": made(form), "c": torch.nn.Conv2d(4, 2, 1)}).to(dtype)
    state_dict: StateDict = network.state_dict()
    served = Predictors(database).load(store_predictor(database, state_dict))
    file = NetworkFile(Tensors(served), "tag")
    whole = b"".join(file.read(0, file.nbytes))
    tensors, rebuilt = safetensors.torch.load(whole), served.artefact.state_dict()
    assert [(name, t.shape, t.dtype) for name, t in rebuilt.items()] == [
        (name, t.shape, t.dtype) for name, t in state_dict.items()
    ]
    assert tensors.keys() == rebuilt.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in rebuilt.items())
    assert list(Tensors(served).described) == list(state_dict)
    first = served.artefact.forms[1].parts[0]
    assert torch.equal(served.kernels(1, torch.tensor([7, 2])), tensors[first].flatten(0, 1)[[7, 2]])
    assert all(b"".join(file.read(start, start + 99)) == whole[start : start + 99] for start in range(0, file.nbytes, 50))


def test_the_whole_of_a_network_is_its_state_dict(database: Database) -> None:
    source = network(database, mixed())
    tensors = safetensors.torch.load(b"".join(source.read(0, source.nbytes)))
    assert {n: (t.shape, t.dtype) for n, t in tensors.items()} == {n: (t.shape, t.dtype) for n, t in mixed().items()}
    assert torch.equal(tensors["large"], mixed()["large"])


@pytest.mark.parametrize(
    ("first", "last", "blocks"), [(600, 1025, [2, 3, 4]), (512, 1024, [2, 3]), (300, 301, [1]), (0, 4096, range(16))]
)
def test_a_range_renders_the_blocks_that_it_covers_and_no_other(
    database: Database, first: int, last: int, blocks: list[int]
) -> None:
    source = network(database, resnet8())
    whole = b"".join(source.read(0, source.nbytes))
    # layer3.0.conv2: 64 x 64 kernels of 36 bytes, in 16 blocks of 256.
    begin = whole.index(safetensors.torch.load(whole)["layer3.0.conv2.weight"].numpy().tobytes())
    start, stop = begin + 36 * first + 7 * (first % 256 > 0), begin + 36 * last
    rendered: list[Any] = []

    def counted(representation: Any, layer: int, block: int) -> torch.Tensor:
        rendered.append((layer, block))
        return render_block(representation, layer, block)

    with patch("service.serving.predictors.render_block", counted):
        source = network(database, resnet8())
        part = b"".join(source.read(start, stop))
    assert part == whole[start:stop]
    assert rendered == [(6, block) for block in blocks]


def test_the_whole_of_a_network_renders_every_block_once_even_if_none_is_kept(database: Database) -> None:
    rendered: list[Any] = []

    def counted(representation: Any, layer: int, block: int) -> torch.Tensor:
        rendered.append((layer, block))
        return render_block(representation, layer, block)

    with (
        patch("service.serving.predictors.render_block", counted),
        patch("service.serving.predictors.MAX_RENDERED_BYTES", 1),
    ):
        source = network(database, mixed())
        assert sum(map(len, source.read(0, source.nbytes))) == source.nbytes
    assert len(rendered) == len(set(rendered)) > 15


def test_a_range_of_a_kept_tensor_reads_that_part_of_the_artefact(database: Database) -> None:
    source = network(database, mixed())
    end = source.nbytes
    asked: list[Any] = []
    read = predictors.read

    def counted(session: Any, id: str, start: int, stop: int) -> bytes:
        asked.append(stop - start)
        return read(session, id, start, stop)

    with patch("service.store.predictors.read", counted):
        assert len(b"".join(source.read(end - 1000, end - 900))) == 100
    assert sum(asked) == 100


@pytest.mark.parametrize("make", [network, artefact])
def test_no_connection_is_held_between_two_pieces(database: Database, make: Any) -> None:
    source = make(database, mixed())
    pool: Any = database.engine.pool
    pieces = source.read(0, source.nbytes)
    for _ in pieces:
        assert pool.checkedout() == 0
