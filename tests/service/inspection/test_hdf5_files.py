"""Files that Keras itself has written, and HDF5 files of other kinds."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch

from nern.layers import find_layers, layout_notes
from service.inspection import child
from service.inspection.inspect import inspect_checkpoint
from service.inspection.pool import Inspectors
from service.inspection.refusal import Refusal
from tests.support.waiting import DEADLINE_SECONDS

# Keras prints, warns and imports what it likes, so it gets a process of its own.
SCRIPT = """
import sys
import keras
import numpy as np

folder = sys.argv[1]
keras.utils.set_random_seed(0)
network = keras.Sequential([
    keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="first"), keras.layers.BatchNormalization(name="norm"),
    keras.layers.SeparableConv2D(6, 3, name="separable"), keras.layers.Flatten(), keras.layers.Dense(5, name="last"),
])
network.compile("adam", "mse")
network.fit(np.ones((2, 8, 8, 3), "float32"), np.ones((2, 5), "float32"), verbose=0)
for suffix in ("keras", "weights.h5", "h5"):
    (network.save_weights if suffix == "weights.h5" else network.save)(f"{folder}/network.{suffix}")
np.savez(f"{folder}/wanted.npz", **{variable.path: keras.ops.convert_to_numpy(variable.value) for variable in network.weights})
"""

KERNELS = ("first/kernel", "separable/depthwise_kernel", "separable/pointwise_kernel")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder)], env=environment, check=True)
    return folder


@pytest.mark.parametrize(("suffix", "format"), [("keras", "keras"), ("weights.h5", "hdf5"), ("h5", "hdf5")])
def test_the_weights_of_a_network_of_keras(folder: Path, tmp_path: Path, suffix: str, format: str) -> None:
    file, target = folder / f"network.{suffix}", tmp_path / "tensors"
    facts = asyncio.run(inspect_checkpoint(Inspectors(0), file, target, seconds=DEADLINE_SECONDS))
    assert facts.format == format
    assert [note for note in facts.notes if "optimizer" in note]
    arrays = [tensor.numpy() for tensor in safetensors.torch.load_file(target).values()]
    found = sorted((array.shape, array.tobytes()) for array in arrays)
    with np.load(folder / "wanted.npz") as wanted:
        assert found == sorted((array.shape, array.tobytes()) for array in wanted.values())
        kernels = sorted(wanted[name].shape for name in wanted if name.endswith(KERNELS))
    layers = find_layers(facts.state_dict)
    assert sorted(layer.shape for layer in layers) == kernels
    (note,) = layout_notes(layers)
    assert "Keras" in note


def written(fill: Callable[[h5py.File], object], **options: Any) -> bytes:
    buffer = BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        fill(file)
    return buffer.getvalue()


def tensors(content: bytes) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    output = BytesIO()
    child.inspect_checkpoint(BytesIO(content), output, len(content))
    return {name: tensor.numpy() for name, tensor in safetensors.torch.load(output.getvalue()).items()}


WEIGHT = np.random.default_rng(0).standard_normal((3, 5, 3, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("earliest", {}),
        ("latest", {}),
        ("earliest", {"chunks": (2, 2, 3, 3)}),
        ("earliest", {"chunks": (2, 5, 1, 3), "compression": "gzip", "shuffle": True, "fletcher32": True}),
        ("earliest", {"dtype": ">f4"}),
        ("latest", {"dtype": "f2"}),
    ],
    ids=["contiguous", "contiguous, latest", "chunks", "compressed", "big-endian", "half"],
)
def test_arrays_come_as_they_were_stored(version: str, options: dict[str, Any]) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("net/conv/weight", data=WEIGHT.astype(options.get("dtype", "f4")), **options)
        file["net/steps"] = np.int64(7)
        file["net/name"] = "a name"

    found = tensors(written(fill, libver=version))
    assert found.keys() == {"net/conv/weight", "net/steps"}
    assert (found["net/conv/weight"] == WEIGHT.astype(options.get("dtype", "f4"))).all()
    assert found["net/steps"] == 7


def test_an_array_of_megabytes_with_odd_extents() -> None:
    weight = np.arange(3 * 5 * 7 * 20_011, dtype=np.float32).reshape(3, 5, 7, 20_011)
    assert (tensors(written(lambda file: file.create_dataset("conv/weight", data=weight)))["conv/weight"] == weight).all()


def test_a_file_that_was_cut_off_is_called_so() -> None:
    content = written(lambda file: file.create_dataset("conv/weight", data=WEIGHT))
    with pytest.raises(Refusal, match="ends too early; upload it again"):
        tensors(content[:-1])


@pytest.mark.parametrize("group", ["optimizer", "optimizer_weights"])
def test_the_state_of_an_optimizer_is_left_out(group: str) -> None:
    def fill(file: h5py.File) -> None:
        file["conv/weight"] = WEIGHT
        file[f"{group}/conv/weight"] = WEIGHT

    assert tensors(written(fill)).keys() == {"conv/weight"}


def nested(file: h5py.File) -> None:
    group = file
    for _ in range(40):
        group = group.create_group("a")
    group["weight"] = WEIGHT


def many(file: h5py.File) -> None:
    for number in range(8001):
        file[str(number)] = np.float32(0)


@pytest.mark.parametrize(
    ("fill", "detail"), [(nested, "more than 32 groups inside each other"), (many, "more than 8000 arrays")]
)
def test_a_file_of_very_many_parts_is_refused(fill: Callable[[h5py.File], object], detail: str) -> None:
    with pytest.raises(Refusal, match=detail) as refusal:
        tensors(written(fill))
    assert refusal.value.slug == "too-demanding"


def test_an_array_that_is_not_in_the_file_is_named() -> None:
    def fill(file: h5py.File) -> None:
        file["weight"] = WEIGHT
        file.create_dataset("beside", (2, 2, 3, 3), "f4", external=[("elsewhere", 0, 144)])

    content = written(fill)
    answer = child.inspect_checkpoint(BytesIO(content), BytesIO(), len(content))
    assert [name for name, *_ in answer["tensors"]] == ["weight"]
    assert "'beside' was left out: it holds no numbers" in answer["notes"]
