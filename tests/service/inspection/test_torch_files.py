"""What people save with torch and pickle: formats, protocols, what stands beside the weights, and whole modules."""

import argparse
import datetime
import enum
import pathlib
import pickle
import random
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nern.stubs import QUANTISED, Stub
from service.inspection import checkpoints
from service.inspection.refusal import Refusal
from service.inspection.tree import Content
from tests.support.networks import resnet8, saved

NETWORK = resnet8()


def read(content: bytes) -> Content:
    return checkpoints.read(BytesIO(content), len(content))[1]


def tree(content: bytes) -> Any:
    return read(content).tree


def equal(found: Any, expected: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(expected) and all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in expected.items()
    )


def torch_saved(content: object, **options: Any) -> bytes:
    buffer = BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_protocol_is_read(protocol: int, zipped: bool) -> None:
    content = torch_saved(NETWORK, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert equal(tree(content), NETWORK)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_without_torch_save_are_read(protocol: int) -> None:
    assert equal(tree(pickle.dumps(NETWORK, protocol)), NETWORK)
    arrays = {name: tensor.numpy() for name, tensor in NETWORK.items()}
    assert equal(tree(pickle.dumps({"model": arrays}, protocol))["model"], NETWORK)


DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.uint16, torch.float8_e4m3fn,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("legacy", [False, True])
def test_every_dtype_is_read(dtype: torch.dtype, legacy: bool) -> None:
    tensor = torch.tensor([0, 1, 2, 3]).to(dtype)
    found = tree(saved({"a": tensor}, legacy=legacy))["a"]
    assert found.dtype == dtype
    assert found.float().tolist() == tensor.float().tolist() if not dtype.is_complex else torch.equal(found, tensor)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", ">i2", "<i8", "u1", "?", "<c8", "<u4"])
def test_arrays_are_tensors(dtype: str) -> None:
    array = np.array([[1, 0, 3], [4, 5, 0]]).astype(dtype)
    for given in (array, np.asfortranarray(array), array[:, :0], np.array(array[0, 0])):
        for protocol in (2, 5):
            found = tree(pickle.dumps({"a": given}, protocol))["a"]
            assert torch.equal(found, torch.from_numpy(np.asarray(given, given.dtype.newbyteorder("="))))


def test_views_share_their_storage() -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    views = {"whole": whole, "part": whole[1:3, ::2], "turned": whole.T, "one": whole[2, 2], "none": whole[:0]}
    for legacy in (False, True):
        found = tree(saved(views, legacy=legacy))
        assert equal(found, views)
        assert found["turned"].untyped_storage().data_ptr() == found["whole"].untyped_storage().data_ptr()


def test_parameters_and_lazy_conjugates_are_tensors() -> None:
    number = torch.tensor([1 + 2j])
    found = tree(saved({"parameter": nn.Parameter(torch.ones(2)), "conj": number.conj()}))
    assert found["parameter"].tolist() == [1, 1]
    assert found["conj"].tolist() == [1 - 2j]
    assert tree(saved({"imag": number.conj().imag}))["imag"].tolist() == [-2]


def test_files_of_big_endian_machines_are_read() -> None:
    tensors = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3, 4])}
    source, buffer = zipfile.ZipFile(BytesIO(saved(tensors))), BytesIO()
    with source, zipfile.ZipFile(buffer, "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("byteorder"):
                content = b"big"
            elif "/data/" in name:
                width = {8: 4, 16: 8}[len(content)]
                content = b"".join(content[at : at + width][::-1] for at in range(0, len(content), width))
            archive.writestr(name, content)
    assert equal(tree(buffer.getvalue()), tensors)


class Level(enum.Enum):
    HIGH = 3


class Settings(dict[str, Any]):
    """A dict with attributes, as EasyDict and AttributeDict are."""


def company() -> dict[str, Any]:
    settings = Settings(lr=0.1)
    settings.note = "x"  # type: ignore[attr-defined]
    return {
        "best": np.float64(0.5),
        "flag": np.bool_(True),
        "array": np.arange(3),
        "objects": np.array([{"a": 1}, None], dtype=object),
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b")),
        "losses": defaultdict(list, train=[1.0]),
        "counts": Counter("aab"),
        "ordered": OrderedDict(a=1),
        "queue": deque([1, 2]),
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        "level": Level.HIGH,
        "settings": settings,
        "bytes": BytesIO(b"abc"),
        "random": (random.getstate(), np.random.get_state(), torch.get_rng_state(), np.random.default_rng(0)),
        "set": {1, 2},
        "complex": 1j,
        "slice": slice(1, 2),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "size": torch.Size([1, 2]),
        "class": nn.Conv2d,
        "function": torch.nn.functional.relu,
        "optimizer": torch.optim.Adam([nn.Parameter(torch.ones(2))]).state_dict(),
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_harmless_company_does_not_refuse_a_file(protocol: int, legacy: bool) -> None:
    content = company() | {"state_dict": NETWORK}
    found = tree(torch_saved(content, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy))
    assert equal(found["state_dict"], NETWORK)
    assert (found["best"], found["flag"], found["array"].tolist()) == (0.5, True, [0, 1, 2])
    assert (found["losses"], found["counts"], found["ordered"]) == ({"train": [1.0]}, {"a": 2, "b": 1}, {"a": 1})
    assert (found["size"], found["queue"]) == ((1, 2), [1, 2])
    assert found["objects"] == [{"a": 1}, None]
    assert (found["args"].name, found["args"].state["lr"]) == ("argparse.Namespace", 0.1)
    assert (found["settings"].items, found["settings"].state) == ({"lr": 0.1}, {"note": "x"})
    names = {name: value.name for name, value in found.items() if isinstance(value, Stub)}
    assert names["when"] == "datetime.datetime"
    assert names["level"] == f"{__name__}.Level"
    assert names["dtype"] == "torch.float32"
    assert names["class"] == "torch.nn.modules.conv.Conv2d"
    assert names["bytes"] == "_io.BytesIO"


class Net(nn.Module):
    """A network of somebody's own, with all that a module can have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.blocks = nn.ModuleList([nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()) for _ in range(2)])
        self.shared = self.conv
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("mask", torch.ones(2))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.register_parameter("nothing", None)
        self.settings = argparse.Namespace(net=self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks[0](self.conv(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_module_gives_its_state_dict(legacy: bool) -> None:
    network = Net()
    found = read(saved(network, legacy=legacy))
    assert equal(found.tree, network.state_dict())
    (note,) = found.notes
    assert f"{__name__}.Net" in note
    wrapped = read(saved({"epoch": 3, "model": nn.DataParallel(network)}, legacy=legacy))
    assert equal(wrapped.tree["model"], nn.DataParallel(network).state_dict())
    assert "'model'" in wrapped.notes[0]


def test_a_module_in_an_object_of_an_unknown_class_is_found() -> None:
    trainer = argparse.Namespace(epoch=3, model=nn.Linear(2, 3))
    found = read(saved(trainer))
    assert list(found.tree["model"]) == ["weight", "bias"]
    assert "argparse.Namespace" in found.notes[0]


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_archive_gives_its_tensors() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    buffer = BytesIO()
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 8, 8)), buffer)  # type: ignore[no-untyped-call]
    content = buffer.getvalue()
    format, found = checkpoints.read(BytesIO(content), len(content))
    assert format == "torchscript"
    assert isinstance(found.tree, dict)
    assert sorted(found.tree) == sorted(network.state_dict())
    assert all(torch.equal(found.tree[name], tensor) for name, tensor in network.state_dict().items())
    assert "TorchScript" in found.notes[0]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta", "ignore:Sparse invariant checks")
def test_sparse_tensors_are_dense_if_they_are_small() -> None:
    dense = torch.eye(5)
    dense[1, 2] = 3
    found = read(saved({"a": {"b": dense.to_sparse()}, "c": torch.ones(5, 5).to_sparse_csr()}))
    assert isinstance(found.tree, dict)
    assert torch.equal(found.tree["a"]["b"], dense)
    assert isinstance(found.tree["c"], Stub)
    assert found.notes == ["the sparse tensor 'a.b' is kept as a dense one"]
    huge = torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1), (2**40,))
    assert isinstance(tree(saved({"a": huge}))["a"], Stub)


@pytest.mark.parametrize(("index", "size"), [(7, 5), (-1, 5)])
def test_indices_outside_of_a_sparse_tensor_are_refused(index: int, size: int) -> None:
    tensor = torch.sparse_coo_tensor(torch.tensor([[index]]), torch.ones(1), (size,), check_invariants=False)
    with pytest.raises(Refusal, match="indices of a sparse tensor"):
        read(saved({"a": tensor}))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_tensors_are_named() -> None:
    found = tree(saved({"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}))
    assert found["a"].name == QUANTISED


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 2), (3, 1)), (2**62, (1,), (1,)), (0, (2**40,), (2**40,)), (-1, (1,), (1,))],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_that_leave_their_storage_are_refused(offset: int, size: Any, stride: Any, legacy: bool) -> None:
    class Crafted:
        def __reduce__(self) -> Any:
            arguments = (torch.ones(4).storage(), offset, size, stride, False, OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    content = saved({"a": Crafted()}, legacy=legacy)
    with pytest.raises(Refusal, match=r"larger than its storage|damaged"):
        read(content)


def test_a_stride_of_0_takes_no_memory() -> None:
    assert tree(saved({"a": torch.ones(1).expand(2**30)}))["a"].untyped_storage().nbytes() == 4


def test_storages_are_read_from_the_archive_alone() -> None:
    content = saved({"a": torch.ones(4)})
    with pytest.raises(Refusal, match="has no data"):
        read(content.replace(b"archive/data/0", b"archive/data/1"))
