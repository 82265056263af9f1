"""Files that people upload, the good and the bad ones, through the process that reads them."""

import asyncio
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from nern import tensorfile
from service import problems
from service.inspection import child
from service.inspection.inspect import CheckpointFacts, inspect_checkpoint
from service.inspection.pool import Inspectors
from service.inspection.refusal import Refusal
from tests.support.networks import resnet8, saved, zipped
from tests.support.pipes import endless
from tests.support.tensors import quantised
from tests.support.waiting import DEADLINE_SECONDS

Check = Callable[[bytes], CheckpointFacts]


NETWORK = resnet8()


def in_process(content: bytes, folder: Path) -> CheckpointFacts:
    """As the service does it: in a process of its own."""
    (folder / "upload").write_bytes(content)
    return asyncio.run(inspect_checkpoint(Inspectors(0), folder / "upload", folder / "tensors", seconds=DEADLINE_SECONDS))


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """What that process does, in this one."""

    def inspect_bytes(content: bytes) -> CheckpointFacts:
        output = BytesIO()
        try:
            answer = child.inspect_checkpoint(BytesIO(content), output, len(content))
        except Refusal as refusal:
            raise problems.KINDS[refusal.slug](refusal.detail) from None
        (tmp_path / "tensors").write_bytes(output.getvalue())
        return CheckpointFacts.of(answer)

    return inspect_bytes


@pytest.mark.parametrize(
    "content",
    [saved(NETWORK), saved(NETWORK, legacy=True), safetensors.torch.save(NETWORK)],
    ids=["torch-zip", "torch-legacy", "safetensors"],
)
def test_a_file_is_read_by_a_process_of_its_own(check: Check, tmp_path: Path, content: bytes) -> None:
    facts = in_process(content, tmp_path)
    tensors = tensorfile.load(tmp_path / "tensors")
    assert facts.format == check(content).format
    assert all(torch.equal(tensors[name], tensor) for name, tensor in NETWORK.items())


def test_a_refusal_comes_back_from_that_process(tmp_path: Path) -> None:
    for content, kind in [(saved(Runs("touch pwned")), problems.ForbiddenPickle), (WHOLE[:-9], problems.TruncatedFile)]:
        with pytest.raises(kind):
            in_process(content, tmp_path)
    assert not list(tmp_path.rglob("pwned"))


WRAPPED: list[tuple[str, bytes, str, str]] = [
    ("plain", saved(NETWORK), "torch-zip", ""),
    ("legacy", saved(NETWORK, legacy=True), "torch-legacy", ""),
    ("safetensors", safetensors.torch.save(NETWORK), "safetensors", ""),
    ("of DataParallel", saved({"module." + name: tensor for name, tensor in NETWORK.items()}), "torch-zip", "module."),
    (
        "beside an optimizer",
        saved({"epoch": 3, "state_dict": NETWORK, "optimizer": torch.optim.SGD([torch.ones(2)], 0.1).state_dict()}),
        "torch-zip",
        "",
    ),
    (
        "compiled",
        saved({"model": {"_orig_mod.module." + name: tensor for name, tensor in NETWORK.items()}, "acc": 0.9}),
        "torch-zip",
        "_orig_mod.module.",
    ),
    ("legacy beside settings", saved({"net": NETWORK, "args": {"lr": 0.1}}, legacy=True), "torch-legacy", ""),
    ("averaged", saved({"ema": NETWORK, "model": resnet8(seed=1)}), "torch-zip", ""),
]


@pytest.mark.parametrize(("content", "format", "prefix"), [row[1:] for row in WRAPPED], ids=[row[0] for row in WRAPPED])
def test_networks_are_found_in_whatever_people_save(
    check: Check, tmp_path: Path, content: bytes, format: str, prefix: str
) -> None:
    facts = check(content)
    assert facts.format == format
    assert {name: tensor.shape for name, tensor in facts.state_dict.items()} == {
        prefix + name: tensor.shape for name, tensor in NETWORK.items()
    }
    tensors = tensorfile.load(tmp_path / "tensors")
    assert all(torch.equal(tensor, NETWORK[name.removeprefix(prefix)]) for name, tensor in tensors.items())


def test_the_key_reaches_the_process(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(saved({"ä": NETWORK, "b": resnet8(seed=1)}))

    def inspected(key: str) -> CheckpointFacts:
        inspection = inspect_checkpoint(
            Inspectors(0), tmp_path / "upload", tmp_path / "tensors", seconds=DEADLINE_SECONDS, key=key
        )
        return asyncio.run(inspection)

    for key, seed in [("ä", 0), ("b", 1)]:
        facts = inspected(key)
        assert (facts.key, facts.first) == (key, key == "ä")
        assert torch.equal(tensorfile.load(tmp_path / "tensors")["conv1.weight"], resnet8(seed=seed)["conv1.weight"])
    with pytest.raises(problems.Invalid, match=r"no state_dict 'c'; it holds 'ä', 'b'") as refused:
        inspected("c")
    assert refused.value.extra["errors"][0]["pointer"] == "query:key"


DTYPES = [dtype for dtype in tensorfile.NAMES if dtype != torch.bool]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("format", ["torch", "safetensors"])
def test_kept_tensors_of_every_dtype_are_copied(check: Check, tmp_path: Path, dtype: torch.dtype, format: str) -> None:
    kept = torch.arange(48, dtype=torch.uint8).view(dtype).clone()
    content = {"c.weight": torch.ones(1, 1, 3, 3), "kept": kept}
    check(saved(content) if format == "torch" or dtype == torch.float8_e8m0fnu else safetensors.torch.save(content))
    stored = tensorfile.load(tmp_path / "tensors")["kept"]
    assert stored.dtype == dtype
    assert torch.equal(stored.view(torch.uint8), kept.view(torch.uint8))


@pytest.mark.parametrize("value", [float("-inf"), float("nan"), 1e300])
def test_kept_tensors_may_have_any_values(check: Check, tmp_path: Path, value: float) -> None:
    check(saved({"c.weight": torch.ones(1, 1, 3, 3), "mask": torch.full((2, 2), value, dtype=torch.float64)}))
    assert torch.equal(
        tensorfile.load(tmp_path / "tensors")["mask"].nan_to_num(7),
        torch.full((2, 2), value, dtype=torch.float64).nan_to_num(7),
    )


@pytest.mark.parametrize("format", ["torch", "safetensors"])
def test_tied_tensors_are_written_once(check: Check, tmp_path: Path, format: str) -> None:
    tied = torch.randn(4, 4, 3, 3)
    if format == "torch":
        facts = check(saved({"a.weight": tied, "b.weight": tied}))
    else:
        facts = check(safetensors.torch.save({"a.weight": tied}, metadata={"b.weight": "a.weight", "format": "pt"}))
    assert facts.aliases == {"b.weight": "a.weight"}
    assert list(facts.state_dict) == ["a.weight", "b.weight"]
    written = safetensors.torch.load_file(tmp_path / "tensors")
    assert list(written) == ["a.weight"]
    tensors = tensorfile.load(tmp_path / "tensors")
    assert torch.equal(tensors["b.weight"], tied)
    assert tensors["b.weight"] is tensors["a.weight"]


def test_names_that_only_look_like_a_prefix_stay(check: Check) -> None:
    facts = check(saved({"model.0.weight": torch.ones(1, 1, 3, 3), "module2.weight": torch.ones(1)}))
    assert list(facts.state_dict) == ["model.0.weight", "module2.weight"]


def test_dtypes_stay_what_they_are(check: Check) -> None:
    state_dict = {"conv.weight": torch.ones(2, 2, 3, 3, dtype=torch.bfloat16), "steps": torch.tensor(7)}
    assert {name: tensor.dtype for name, tensor in check(saved(state_dict)).state_dict.items()} == {
        "conv.weight": torch.bfloat16, "steps": torch.int64,
    }  # fmt: skip


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def safetensors_file(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def with_nan() -> dict[str, torch.Tensor]:
    state_dict = resnet8()
    state_dict["layer1.0.conv1.weight"][3, 2, 1, 0] = float("nan")
    return state_dict


WHOLE, LEGACY, SAFE = saved(NETWORK), saved(NETWORK, legacy=True), safetensors.torch.save(NETWORK)


REFUSED: list[tuple[str, bytes, type[problems.Problem], str]] = [
    ("bytes", b"\xa5" * 600, problems.NotACheckpoint, "neither"),
    ("truncated zip", WHOLE[: len(WHOLE) // 2], problems.TruncatedFile, "again"),
    ("truncated legacy", LEGACY[: len(LEGACY) // 2], problems.TruncatedFile, "again"),
    ("truncated safetensors", SAFE[: len(SAFE) // 2], problems.TruncatedFile, "again"),
    ("truncated safetensors header", SAFE[:100], problems.TruncatedFile, "header"),
    ("another zip", zipped(readme=b"hi", licence=b""), problems.NotACheckpoint, "not one of torch.save"),
    ("a checkpoint in a zip", zipped(net=WHOLE), problems.NotACheckpoint, "holds 'net'; unpack it"),
    ("torch.export", zipped(models__model=b"{}"), problems.UnsupportedGraph, "torch.export"),
    ("code in a zip", saved({"state_dict": NETWORK, "hook": Runs("touch pwned")}), problems.ForbiddenPickle, "system"),
    ("code in a legacy file", saved(Runs("touch pwned"), legacy=True), problems.ForbiddenPickle, "system"),
    (
        "names of megabytes",
        saved({f"{number}{'n' * 990}": torch.zeros(1, 1) for number in range(1100)}),
        problems.TooDemanding,
        "the names of the tensors",
    ),
    ("code in a plain pickle", pickle.dumps(Runs("touch pwned")), problems.ForbiddenPickle, "system"),
    ("an extension of pickle", b"\x80\x02\x82\x01.", problems.ForbiddenPickle, "extension registry"),
    ("an object elsewhere", b"\x80\x02K\x01Q.", problems.ForbiddenPickle, "outside of it"),
    ("no state_dict", saved([1, 2, 3]), problems.NotACheckpoint, "state_dict"),
    ("numbers only", saved({"epoch": 3}), problems.NotACheckpoint, "state_dict"),
    ("NaN", saved(with_nan()), problems.NonFiniteWeights, r"layer1\.0\.conv1\.weight"),
    (
        "infinity",
        safetensors.torch.save({"c.weight": torch.full((1, 1, 3, 3), float("inf"))}),
        problems.NonFiniteWeights,
        "c.weight",
    ),
    ("no convolutions", saved({"linear.weight": torch.ones(3, 3)}), problems.NoConvolutions, "convolution"),
    (
        "large and sparse",
        saved({"c.weight": torch.ones(1, 1, 3, 3), "s": torch.zeros(9999, 9999).to_sparse()}),
        problems.UnsupportedTensor,
        r"'s' is sparse and too large .*to_dense\(\)",
    ),
    (
        "complex of 16 bytes",
        saved({"c.weight": torch.ones(1, 1, 3, 3), "s": torch.ones(2, dtype=torch.complex128)}),
        problems.UnsupportedTensor,
        "'s' is torch.complex128",
    ),
    (
        "quantised",
        saved({"c.weight": quantised(torch.ones(1, 1, 3, 3))}),
        problems.UnsupportedTensor,
        "'c.weight' is quantised, .* before quantisation",
    ),
    (
        "a view of one number",
        saved({"c.weight": torch.ones(1).expand(4000, 4000, 10, 10)}),
        problems.UnsupportedTensor,
        "storage",
    ),
    ("a header that is no JSON", safetensors_file(b"{" + b"x" * 64), problems.NotACheckpoint, "header"),
    (
        "overlapping tensors",
        safetensors_file(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}',
            b"\0" * 6,
        ),
        problems.NotACheckpoint,
        "overlaps",
    ),
    (
        "a gap",
        safetensors_file(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', b"\0" * 8),
        problems.NotACheckpoint,
        "gap",
    ),
    (
        "a dtype of tomorrow",
        safetensors_file(b'{"a":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}}', b"\0" * 4),
        problems.NotACheckpoint,
        "F4",
    ),
    (
        "a shape that is no integer",
        safetensors_file(b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', b"\0" * 4),
        problems.NotACheckpoint,
        "header",
    ),
    ("a name that is no text", saved({"\ud800.weight": torch.ones(1, 1, 3, 3)}), problems.NotACheckpoint, "name of a tensor"),
    (
        "a reserved name",
        saved({"c.weight": torch.ones(1, 1, 3, 3), "__metadata__": torch.ones(1)}),
        problems.NotACheckpoint,
        "name",
    ),
    (
        "too large for float32",
        saved({"c.weight": torch.full((1, 1, 3, 3), 1e300, dtype=torch.float64)}),
        problems.NonFiniteWeights,
        "c.w",
    ),
    ("no values", saved({"c.weight": torch.ones(1, 1, 3, 3, device="meta")}), problems.UnsupportedTensor, "meta"),
    (
        "bytes behind",
        safetensors_file(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 9),
        problems.NotACheckpoint,
        "5 bytes follow",
    ),
    (
        "a shape of another size",
        safetensors_file(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}', b"\0" * 4),
        problems.NotACheckpoint,
        "size",
    ),
    (
        "a negative shape",
        safetensors_file(b'{"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}', b"\0" * 4),
        problems.NotACheckpoint,
        "negative",
    ),
    (
        "an absurd shape",
        safetensors_file(b'{"a":{"dtype":"F32","shape":[99999999,99999999],"data_offsets":[0,4]}}', b"\0" * 4),
        problems.NotACheckpoint,
        "size",
    ),
]


@pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore:Detected pickle protocol")
@pytest.mark.parametrize(("content", "kind", "detail"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_bad_files_are_refused_with_the_reason(
    check: Check, tmp_path: Path, content: bytes, kind: type[problems.Problem], detail: str
) -> None:
    with pytest.raises(kind, match=detail) as refused:
        check(content)
    assert type(refused.value) is kind
    assert str(tmp_path) not in refused.value.detail
    assert not list(tmp_path.rglob("pwned"))


def test_a_compressed_archive_is_refused(check: Check) -> None:
    source, buffer = zipfile.ZipFile(BytesIO(saved({"c.weight": torch.zeros(64, 64, 16, 16)}))), BytesIO()
    with source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in source.infolist():
            archive.writestr(member.filename, source.read(member))
    with pytest.raises(problems.NotACheckpoint, match="compressed"):
        check(buffer.getvalue())


@pytest.mark.parametrize(
    "shape", ["[100000000000000000000,0,3,3]", "[0,9223372036854775808,3,3]", "[4611686018427387904,4,1,0]"]
)
def test_absurd_shapes_are_the_files_fault(tmp_path: Path, shape: str) -> None:
    header = f'{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}'
    with pytest.raises(problems.NotACheckpoint):
        in_process(safetensors_file(header.encode()), tmp_path)


def test_a_name_twice_is_refused(check: Check) -> None:
    entry = b'"c.weight":{"dtype":"F32","shape":[1,1,1,1],"data_offsets":[0,4]}'
    with pytest.raises(problems.NotACheckpoint, match="twice"):
        check(safetensors_file(b"{" + entry + b"," + entry + b"}", b"\0" * 4))


def test_reading_too_long_is_ended(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(WHOLE)
    with endless(tmp_path / "tensors"), pytest.raises(problems.TooDemanding, match="longer than 1 seconds"):
        asyncio.run(inspect_checkpoint(Inspectors(0), tmp_path / "upload", tmp_path / "tensors", seconds=1))


@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [
        ("open('/etc/hostname')", "OSError"),
        ("open('new', 'wb')", "OSError"),
        ("__import__('socket').socket()", "OSError"),
        ("bytearray(3 * 2**30)", "MemoryError"),
        ("output.write(bytes(2000)) and output.flush()", "OSError"),
    ],
)
def test_the_inspecting_process_can_do_little(tmp_path: Path, attempt: str, outcome: str) -> None:
    script = f"""
import signal, socket
from service.inspection.limits import limit
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
output = open("output", "wb")
limit(memory_bytes=2**20, output_bytes=1000, seconds=60)
try:
    {attempt}
except {outcome}:
    print("refused")
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert ended.stdout == "refused\n", ended.stderr
