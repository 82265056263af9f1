"""Files that are something else than a checkpoint are called by their name."""

import argparse
import gzip
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from service.inspection import checkpoints
from service.inspection.refusal import Refusal
from tests.support.networks import npz, resnet8, saved, zipped

NETWORK = resnet8()


def refusal(content: bytes) -> str:
    with pytest.raises(Refusal) as refused:
        checkpoints.read(BytesIO(content), len(content))
    assert refused.value.slug == "not-a-checkpoint"
    return refused.value.detail


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
ADAPTER = {"unet.lora_A.weight": torch.ones(4, 8), "unet.lora_B.weight": torch.ones(8, 4), "unet.alpha": torch.tensor(4.0)}
OPTIMIZER = torch.optim.Adam([nn.Parameter(torch.ones(2))])

NAMED: list[tuple[str, bytes, list[str]]] = [
    ("a pointer of Git LFS", POINTER, ["Git LFS", "git lfs pull"]),
    ("a web page", b"\n<!DOCTYPE html><html>Quota exceeded</html>", ["web page", "download"]),
    ("an error of a store", b'<?xml version="1.0"?><Error>AccessDenied</Error>', ["web page"]),
    ("gzip", gzip.compress(saved(NETWORK)), ["gzip", "unpack"]),
    ("another archive", zipped(config=b"{}", weights=b""), ["zip archive of 2 files"]),
    ("TensorFlow Lite", bytes(4) + b"TFL3" + bytes(100), ["TensorFlow Lite", "convert"]),
    ("GGUF", b"GGUF" + bytes(100), ["GGUF", "convert"]),
    ("JSON", b'{"weight_map": {}}', ["JSON", "upload the weights"]),
    ("a checkpoint in a zip", zipped(net=saved(NETWORK)), ["zip archive that holds 'net'", "unpack"]),
    ("a dataset", npz(images=np.zeros((1, 4, 4, 3), np.uint8)), ["dataset", "POST /v1/datasets"]),
    ("an optimizer", saved(OPTIMIZER.state_dict()), ["optimizer", "no network"]),
    ("a method", saved(nn.Linear(2, 3).state_dict), ["`state_dict`", "parentheses are missing"]),
    ("a method beside", saved({"epoch": 1, "net": nn.Linear(2, 3).state_dict}), ["parentheses are missing"]),
    ("a LoRA", saved(ADAPTER), ["LoRA", "merge_and_unload"]),
    ("a LoRA in safetensors", safetensors.torch.save(ADAPTER), ["LoRA"]),
    ("source code", b'"""Net."""\nimport torch\n' + bytes(range(256)), ["Python", "nern.export"]),
    ("the name of a file", b"network.pth", ["the text 'network.pth'", "-F file=@FILE"]),
    ("anything else", b"\xa5" * 600, ["neither torch.save nor safetensors"]),
]


@pytest.mark.parametrize(("content", "words"), [row[1:] for row in NAMED], ids=[row[0] for row in NAMED])
def test_a_refusal_says_what_the_file_is_and_what_to_do(content: bytes, words: list[str]) -> None:
    detail = refusal(content)
    assert all(word in detail for word in words), detail


OTHERS: list[dict[str, Any]] = [
    {"state_dict": NETWORK, "optimizer": OPTIMIZER.state_dict()},
    {**OPTIMIZER.state_dict(), "model": NETWORK},
    {**NETWORK, **ADAPTER},
    {"state_dict": NETWORK, "args": argparse.Namespace(lora_rank=4)},
]


@pytest.mark.parametrize("content", OTHERS)
def test_networks_with_such_things_beside_are_accepted(content: dict[str, Any]) -> None:
    data = saved(content)
    assert checkpoints.read(BytesIO(data), len(data))[0] == "torch-zip"


def test_arrays_by_name_are_a_checkpoint() -> None:
    arrays = {"conv.weight": np.ones((2, 3, 3, 3), np.float32), "labels_embedding": np.ones(3), "name": np.array("x")}
    for save in (np.savez, np.savez_compressed):
        buffer = BytesIO()
        save(buffer, **arrays)  # type: ignore[arg-type]
        format, content = checkpoints.read(BytesIO(buffer.getvalue()), len(buffer.getvalue()))
        assert format == "npz"
        assert isinstance(content.tree, dict)
        assert content.tree["conv.weight"].shape == (2, 3, 3, 3)
        assert content.tree["name"].name == "numpy.ndarray"


def test_a_dict_in_an_array_is_a_checkpoint() -> None:
    buffer = BytesIO()
    np.save(buffer, np.array({"conv": {"weight": np.ones((2, 3, 3, 3), np.float32)}}, dtype=object))
    format, content = checkpoints.read(BytesIO(buffer.getvalue()), len(buffer.getvalue()))
    assert format == "npy"
    assert isinstance(content.tree, dict)
    assert content.tree["conv"]["weight"].shape == (2, 3, 3, 3)
