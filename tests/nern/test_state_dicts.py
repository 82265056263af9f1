import pytest
import torch

from nern.errors import NoStateDict
from nern.state_dicts import find_state_dict
from tests.support.networks import resnet8


def test_a_state_dict_is_found_in_wrappers_and_without_prefixes() -> None:
    network = resnet8()
    wrapped = {"epoch": 3, "state_dict": {f"module._orig_mod.{name}": tensor for name, tensor in network.items()}}
    found = find_state_dict(wrapped)
    assert list(found) == list(network)
    assert all(found[name] is tensor for name, tensor in network.items())


@pytest.mark.parametrize("loaded", [None, [torch.ones(1)], {"epoch": 3}, {"model": {"model": {}}}, {1: torch.ones(1)}])
def test_what_holds_no_state_dict_is_refused(loaded: object) -> None:
    with pytest.raises(NoStateDict, match=r"save model\.state_dict"):
        find_state_dict(loaded)
