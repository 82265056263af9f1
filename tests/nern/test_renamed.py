import pytest
import torch
from torch import nn

from nern.prefixes import View
from nern.teachers import Renamed, call

INPUT = torch.randn(2, 3)


def linear() -> nn.Linear:
    """A layer that adds up its three inputs, three times."""
    made = nn.Linear(3, 3, bias=False)
    nn.init.ones_(made.weight)
    return made


def test_weights_have_the_names_of_the_checkpoint() -> None:
    network = Renamed(linear(), View("net.", {"weight": "net.weight"}))
    before = network(INPUT)
    assert torch.equal(before, INPUT.sum(1, keepdim=True).expand(2, 3))
    assert not call(network, {"net.weight": torch.zeros(3, 3)}, (INPUT,))["output"].any()
    assert torch.equal(network(INPUT), before)


@pytest.mark.parametrize("name", ["weight", "loss.weight", "other.net.weight"])
def test_weights_of_other_names_change_nothing(name: str) -> None:
    network = Renamed(linear(), View("net.", {"weight": "net.weight"}))
    assert torch.equal(call(network, {name: torch.zeros(3, 3)}, (INPUT,))["output"], network(INPUT))


def test_tied_weights_are_given_once() -> None:
    view = View("", {"0.weight": "first", "1.weight": "second"})
    network = Renamed(nn.Sequential(linear(), linear()), view, {"second": "first"})
    doubling = 2 * torch.eye(3)
    torch.testing.assert_close(call(network, {"first": doubling}, (INPUT,))["output"], 4 * INPUT)


def test_modules_with_their_own_names_are_called_too() -> None:
    assert not call(linear(), {"weight": torch.zeros(3, 3)}, (INPUT,))["output"].any()
