"""Artefacts that release 0.1.0 wrote are read for good."""

import json
from pathlib import Path

import pytest
import torch

from tests.support.networks import resnet8
from tests.support.representations import opened

FOLDER = Path(__file__).parent.parent / "data" / "release-0.1.0"


@pytest.mark.parametrize("name", ["half", "coded", "target", "paper"])
def test_an_artefact_of_release_0_1_0_gives_the_weights_that_it_gave(name: str) -> None:
    expected = json.loads((FOLDER / "expected.json").read_text())[name]["kernel"]
    original = resnet8()
    rebuilt = opened((FOLDER / f"{name}.safetensors").read_bytes()).state_dict()
    assert {key: (tensor.shape, tensor.dtype) for key, tensor in rebuilt.items()} == {
        key: (tensor.shape, tensor.dtype) for key, tensor in original.items()
    }
    layer, filter, channel = expected["coordinate"]
    weight = [tensor for tensor in rebuilt.values() if tensor.ndim == 4][layer]
    torch.testing.assert_close(weight[filter, channel], torch.tensor(expected["weights"]), rtol=1e-4, atol=1e-6)
    assert torch.equal(rebuilt["bn1.weight"], original["bn1.weight"])
