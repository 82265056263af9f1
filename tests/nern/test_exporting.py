"""`nern.export` and the command `nern export`."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import nern
from nern.errors import BadProgram
from nern.graph.interpreter import GraphNetwork
from service import cli
from tests.support.exports import difference, opened
from tests.support.zoo import ZOO

CODE = """
import torch
from torch import nn
import beside

def network():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, beside.CLASSES))
    return module, torch.zeros(1, 3, 8, 8)

def nothing():
    return 3

class Net(nn.Module):
    pass
"""


def made(folder: Path) -> Path:
    (folder / "own_network.py").write_text(CODE)
    (folder / "beside.py").write_text("CLASSES = 5")
    return folder / "own_network.py"


@pytest.mark.parametrize("name", ["tutorial", "recurrent", "memory", "windows", "two-inputs", "detector"])
def test_a_module_becomes_a_file_for_any_batch(name: str, tmp_path: Path) -> None:
    network = ZOO[name].network().train()
    written = nern.export(network, ZOO[name].inputs(1), tmp_path / "network.pt2")
    assert written.any_batch
    assert written.difference < 1e-4
    assert network.training
    found = opened((tmp_path / "network.pt2").read_bytes())
    inputs = ZOO[name].inputs(3, seed=4)
    assert difference(GraphNetwork(found.program, found.state_dict)(*inputs), network.eval()(*inputs)) < 1e-4
    assert found.state_dict.keys() == network.state_dict().keys()


def test_a_network_with_a_fixed_batch_is_exported_with_that_batch() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(12).view(1, 12)

    buffer = BytesIO()
    assert not nern.export(Fixed(), torch.zeros(1, 3, 4), buffer).any_batch
    assert opened(buffer.getvalue()).program.inputs[0].shape == (1, 3, 4)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    path = tmp_path / "network.pt2"
    with pytest.raises(BadProgram, match=r"aten.rand_like.default at 'rand_like' is not supported"):
        nern.export(Noisy(), torch.zeros(1, 3), path)
    with pytest.raises(BadProgram, match="torch can't export the network: "):
        nern.export(Branching(), torch.zeros(1, 3), path)
    with pytest.raises(BadProgram, match="the example inputs are not tensors"):
        nern.export(nn.ReLU(), [3], path)
    with pytest.raises(BadProgram, match="give the module itself, not its state_dict"):
        nern.export(nn.ReLU().state_dict(), torch.zeros(1, 3), path)
    with pytest.raises(BadProgram, match=r"of the shape \[3, 8, 8\].*batch axis"):
        nern.export(nn.Sequential(nn.Conv2d(3, 6, 5), nn.Flatten(), nn.Linear(96, 2)), torch.zeros(3, 8, 8), path)
    assert not path.exists()


def test_the_command_writes_what_a_function_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = made(tmp_path)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    output = tmp_path / "out.pt2"
    program = [sys.executable, "-m", "service.cli", "export"]
    command = [*program, f"{source}:network", "-o", str(output), "--weights", str(tmp_path / "weights.pth")]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    assert shown.stdout.startswith(f"wrote {output}: ")
    assert shown.stdout.endswith("any number of samples\n")
    found = opened(output.read_bytes())
    assert torch.equal(found.state_dict["3.weight"], network.state_dict()["3.weight"])
    x = torch.randn(2, 3, 8, 8)
    assert difference(GraphNetwork(found.program, found.state_dict)(x), network(x)) < 1e-5


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("own_network.py", "does not name a function; write FILE.py:function"),
        ("own_network.py:missing", "has no function missing"),
        ("own_network.py:Net", "Net is a class; write a function"),
        ("own_network.py:nothing", "nothing returned something else; it should return the module and example inputs"),
    ],
)
def test_the_command_says_what_is_wrong(function: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit, match=message):
        cli.main(["export", str(tmp_path / function)])


def test_importing_the_package_does_not_import_torch() -> None:
    program = "import sys, nern; print('torch' in sys.modules, callable(nern.export), 'torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=600)
    assert shown.stdout.split() == ["False", "True", "True"]
