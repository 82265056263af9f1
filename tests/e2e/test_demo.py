"""The demo with somebody's own network: whatever file it is in, the result is compared on images that were not uploaded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import nern
from tests.support.networks import dataset_file
from tests.support.waiting import DEADLINE_SECONDS

DEMO = Path(__file__).parent.parent.parent / "scripts" / "demo.py"


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def save(folder: Path, name: str) -> None:
    if name.endswith(".pt2"):
        nern.export(network(), torch.zeros(1, 3, 8, 8), folder / name)
    else:
        torch.save(network().state_dict(), folder / name)


def demo(folder: Path, name: str, **job: Any) -> tuple[dict[str, Any], str]:
    """The result of the demo, and what it shows."""
    save(folder, name)
    (folder / "images.npz").write_bytes(dataset_file())
    command = [sys.executable, str(DEMO), "--json", "--checkpoint", str(folder / name), "--dataset", str(folder / "images.npz")]
    wanted = {"steps": 5, "hidden": 4, "layers": "everything", **job}
    command += ["--test", str(folder / "images.npz"), "--output", str(folder / "result"), "--job", json.dumps(wanted)]
    command += ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout), ended.stderr


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("network.pt2", {}),
        (
            "network.pth",
            {"network": {"sequential": ["conv padding=1", "relu", "maxpool 2", "conv", "relu", "flatten", "linear"]}},
        ),
    ],
    ids=["a graph", "a description"],
)
def test_a_network_of_ones_own_is_compared_with_what_came_back(tmp_path: Path, name: str, job: dict[str, Any]) -> None:
    result, shown = demo(tmp_path, name, **job)
    with np.load(tmp_path / "images.npz") as arrays:
        pixels, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    right = network()((pixels.float() / 255 - 0.5).div(0.5).movedim(-1, 1)).argmax(1) == labels
    assert result["measured"]["original"] == pytest.approx(right.float().mean().item())
    assert result["measured"]["images"] == len(labels)
    assert "6.weight" in shown
    rebuilt = network()
    rebuilt.load_state_dict(safetensors.torch.load_file(tmp_path / "result" / "rebuilt.safetensors"))
    right = rebuilt((pixels.float() / 255 - 0.5).div(0.5).movedim(-1, 1)).argmax(1) == labels
    assert result["measured"]["rebuilt"] == pytest.approx(right.float().mean().item())
    assert json.loads((tmp_path / "result" / "report.json").read_text()) == result["report"]
    content = (tmp_path / "result" / "artefact.safetensors").read_bytes()
    assert len(content) == result["report"]["bytes"]["total"]


def test_the_demo_says_why_it_can_compare_nothing(tmp_path: Path) -> None:
    result, shown = demo(tmp_path, "network.pth")
    assert result["measured"] is None
    words = " ".join(shown.split())
    assert "nothing can compute this network" in words
    assert "Note: the architecture is unknown, so only the weights are reconstructed" in words
