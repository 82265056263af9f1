"""Checkpoints in several safetensors files."""

import json
import tarfile
from io import BytesIO
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load, save

from nern.layers import StateDict
from service.settings import Settings
from tests.support.calls import files, is_problem
from tests.support.networks import resnet8

NETWORK = resnet8()
NAMES = list(NETWORK)
ONE, TWO, INDEX = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"


def index(**places: str) -> bytes:
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": places}).encode()


def shards(network: StateDict = NETWORK) -> dict[str, bytes]:
    """The files that a library writes for a checkpoint in two shards."""
    tensors = {name: tensor.contiguous() for name, tensor in network.items()}
    half = len(tensors) // 2
    first, second = dict(list(tensors.items())[:half]), dict(list(tensors.items())[half:])
    places = {**dict.fromkeys(first, ONE), **dict.fromkeys(second, TWO)}
    return {ONE: save(first), TWO: save(second), INDEX: index(**{name: places[name] for name in tensors})}


def send(client: httpx.Client, content: dict[str, bytes], **options: Any) -> httpx.Response:
    """Uploads several files in one form."""
    return client.post("/v1/checkpoints", files=[("file", item) for item in content.items()], **options)


def archive(content: dict[str, bytes], folder: str = "net/", **kinds: bytes) -> bytes:
    """A tar archive of files, as tar makes it of a folder. `kinds` are types of members that are no files."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        made.addfile(directory := tarfile.TarInfo(folder))
        directory.type = tarfile.DIRTYPE
        for name, data in content.items():
            member = tarfile.TarInfo(folder + name)
            member.size, member.mtime = len(data), 1_700_000_000
            made.addfile(member, BytesIO(data))
        for name, kind in kinds.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "/etc/passwd"
            made.addfile(link)
    return buffer.getvalue()


def send_archive(client: httpx.Client, content: bytes) -> httpx.Response:
    """Uploads an archive as the whole body."""
    return client.post("/v1/checkpoints?filename=net.tar", content=content, headers={"content-type": "application/x-tar"})


def test_shards_and_their_index_are_one_checkpoint(client: httpx.Client, settings: Settings) -> None:
    answer = send(client, shards())
    found = answer.json()
    assert answer.status_code == 201, found
    assert (found["filename"], found["format"], found["architecture"]) == ("model.tar", "safetensors-shards", "cifar/resnet8")
    kept = {tensor["name"] for tensor in found["kept"]}
    assert [layer["name"] for layer in found["layers"]] == [name for name in NAMES if name not in kept]
    assert not files(settings.staging)
    turned = dict(reversed(shards().items()))
    again = send(client, turned)
    assert (again.status_code, again.json()["id"]) == (200, found["id"])
    with tarfile.open(fileobj=BytesIO(client.get(f"{answer.headers['location']}/file").content)) as archive:
        held = {member.name: archive.extractfile(member) for member in archive}
    assert {name: file.read() for name, file in held.items() if file} == shards()


def test_a_tar_archive_of_the_folder_is_the_same_checkpoint(client: httpx.Client) -> None:
    beside = {"config.json": b"{}", "._model.safetensors": b"x"}
    answer = send_archive(client, archive({**shards(), **beside}))
    assert answer.status_code == 201, answer.text
    assert answer.json()["architecture"] == "cifar/resnet8"


def test_without_the_index_all_shards_must_be_there(client: httpx.Client) -> None:
    content = {name: data for name, data in shards().items() if name != INDEX}
    answer = send(client, content)
    assert (answer.status_code, answer.json()["architecture"]) == (201, "cifar/resnet8")
    third = {name.replace("00002", "00003", 1) if name == TWO else name: data for name, data in content.items()}
    third = {name.replace("of-00002", "of-00003"): data for name, data in third.items()}
    assert is_problem(send(client, third), 422, "bad-shards", "model-00002-of-00003.safetensors missing")


@pytest.mark.parametrize("name", [ONE, TWO, INDEX, "pytorch_model-00001-of-00003.bin"])
def test_a_lone_part_is_refused_by_its_name(client: httpx.Client, name: str) -> None:
    answer = send(client, {name: shards().get(name, b"x")})
    assert is_problem(answer, 422, "lone-shard", name)
    assert ("safetensors" if name.endswith(".bin") else "all shards and the index") in answer.json()["detail"]


def test_one_of_one_is_the_whole_checkpoint(client: httpx.Client) -> None:
    content = save({name: tensor.contiguous() for name, tensor in NETWORK.items()})
    assert send(client, {"model-00001-of-00001.safetensors": content}).status_code == 201


EXTRA = save({"extra.weight": torch.zeros(1, 1, 3, 3)})


@pytest.mark.parametrize(
    ("change", "slug", "named"),
    [
        ({TWO: None}, "bad-shards", TWO),
        ({"other.safetensors": EXTRA}, "bad-shards", "other.safetensors"),
        ({INDEX: index(conv1=ONE)}, "bad-shards", TWO),
        ({INDEX: index(**dict.fromkeys(NAMES, ONE), there=TWO)}, "bad-shards", f"not in their shard ({ONE})"),
        ({INDEX: b"{}"}, "bad-shards", "weight_map"),
        ({INDEX: b"\xff"}, "bad-shards", "weight_map"),
        ({INDEX: b'{"weight_map": {"a": 1}}'}, "bad-shards", "weight_map"),
        ({INDEX: b"[" * 100_000}, "bad-shards", "weight_map"),
        ({TWO: save({**load(shards()[TWO]), "surplus": torch.zeros(1)})}, "bad-shards", "surplus"),
        ({TWO: save({n: t for n, t in load(shards()[TWO]).items() if n != NAMES[-1]})}, "bad-shards", NAMES[-1]),
        ({TWO: save({**load(shards()[TWO]), NAMES[0]: torch.zeros(1)})}, "bad-shards", f"{NAMES[0]!r} is in two shards"),
        ({TWO: b"no safetensors at all"}, "bad-shards", f"{TWO} is not in the safetensors format"),
        ({TWO: shards()[TWO][:-10]}, "truncated-file", TWO),
        ({TWO: b""}, "empty-file", TWO),
        ({"b.safetensors.index.json": index(conv1=ONE)}, "bad-shards", "more than one index"),
        ({ONE: None, TWO: None, INDEX: None, "a.pt": b"x", "b.pt": b"y"}, "bad-shards", "a.pt, b.pt"),
        ({ONE: None, TWO: None, INDEX: None, "a.safetensors": EXTRA, "b.safetensors": EXTRA}, "bad-shards", "a.safetensors"),
    ],
)  # fmt: skip
def test_what_is_missing_or_too_much_is_named(
    client: httpx.Client, settings: Settings, change: dict[str, bytes | None], slug: str, named: str
) -> None:
    content = {name: data for name, data in {**shards(), **change}.items() if data is not None}
    assert is_problem(send(client, content), 422, slug, named)
    assert not files(settings.data_dir / "blobs")


def test_archives_that_are_not_what_they_should_be(client: httpx.Client) -> None:
    whole = archive(shards())
    assert is_problem(send_archive(client, whole[: len(whole) // 2]), 422, "truncated-file")
    assert is_problem(send_archive(client, archive(shards(), link=tarfile.SYMTYPE)), 422, "bad-shards", "'link'")
    twice = archive({ONE: shards()[ONE], f"again/{ONE}": shards()[ONE]})
    assert is_problem(send_archive(client, twice), 422, "bad-shards", f"two files of the name {ONE!r}")
    assert is_problem(send_archive(client, archive({"notes.txt": b"hello"})), 422, "bad-shards", "notes.txt")


def test_a_form_of_several_files_has_limits(client: httpx.Client) -> None:
    twice = client.post("/v1/checkpoints", files=[("file", (ONE, b"a")), ("file", (ONE, b"b"))])
    assert is_problem(twice, 400, "bad-request", ONE)
    digest = {"Content-Digest": "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"}
    assert is_problem(send(client, shards(), headers=digest), 400, "bad-request", "Content-Digest")
    assert is_problem(send(client, {"a": b"\0" * 1_500_000, "b": b"\0" * 1_500_000}), 413, "too-large")
    many = [("file", (f"{number}.safetensors", b"x")) for number in range(1001)]
    assert is_problem(client.post("/v1/checkpoints", files=many), 400, "bad-request", "1000")
    assert is_problem(client.post("/v1/datasets", files=many[:2]), 400, "bad-request", "two parts `file`")
