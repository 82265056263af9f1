from typing import get_args

import pytest
import safetensors.torch
import torch

from nern.errors import BadArtefact
from nern.layers import StateDict
from nern.network import Network
from nern.rendering import render_layer
from nern.request.options import PermutationKind
from tests.support.forms import CASES, inputs_of, made, weight_of
from tests.support.networks import odd, resnet8
from tests.support.representations import opened, untrained, written


def half(state_dict: StateDict, dtype: torch.dtype) -> StateDict:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state_dict.items()}


@pytest.mark.parametrize("permutation", get_args(PermutationKind))
@pytest.mark.parametrize("state_dict", [resnet8(), odd(), half(resnet8(), torch.float16), half(odd(), torch.bfloat16)])
def test_the_whole_network_comes_back_from_the_artefact(state_dict: StateDict, permutation: PermutationKind) -> None:
    representation = untrained(state_dict, permutation=permutation)
    content, nbytes = written(representation, state_dict, architecture="somebody/network")
    artefact = opened(content)
    rebuilt = artefact.state_dict()
    assert nbytes.total == len(content)
    assert artefact.architecture == "somebody/network"
    assert [(name, t.shape, t.dtype) for name, t in rebuilt.items()] == [
        (name, t.shape, t.dtype) for name, t in state_dict.items()
    ]
    represented = {layer.name: number for number, layer in enumerate(representation.layers)}
    for name, tensor in rebuilt.items():
        if name in represented:
            assert torch.equal(tensor, render_layer(representation, represented[name]))
        else:
            assert torch.equal(tensor, state_dict[name])


def test_other_readers_of_safetensors_can_open_it() -> None:
    state_dict = resnet8()
    content, nbytes = written(untrained(state_dict), state_dict)
    tensors = safetensors.torch.load(content)
    assert torch.equal(tensors["kept.linear.weight"], state_dict["linear.weight"])
    assert sum(tensor.nbytes for tensor in tensors.values()) == nbytes.predictor + nbytes.permutation + nbytes.kept


def test_the_permutation_of_resnet8_takes_its_bits() -> None:
    state_dict = resnet8()
    _, nbytes = written(untrained(state_dict), state_dict)
    kernels = {48: 6, 256: 8, 512: 9, 1024: 10, 2048: 11, 4096: 12}
    layers = [48, 256, 256, 512, 1024, 2048, 4096]
    runs = sum(-(-count * (kernels[count] - 4) // 8) for count in layers)
    orders_of_sixteen = sum(-(-count // 16 * 45 // 8) for count in layers)
    assert nbytes.permutation == runs + orders_of_sixteen


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"\xff" * 100])
def test_other_bytes_are_refused(damage: bytes) -> None:
    with pytest.raises(BadArtefact):
        opened(damage)


def test_another_safetensors_file_is_refused() -> None:
    with pytest.raises(BadArtefact, match="not an artefact"):
        opened(safetensors.torch.save({"weight": torch.zeros(2)}))


def test_a_tensor_of_one_element_may_have_any_stride() -> None:
    state_dict = resnet8() | {"temperature": torch.arange(15.0).view(3, 5)[:1, 4]}
    content, _ = written(untrained(state_dict), state_dict)
    assert opened(content).state_dict()["temperature"].tolist() == [4.0]


def test_a_file_that_ends_too_early_is_refused() -> None:
    state_dict = resnet8()
    content, _ = written(untrained(state_dict), state_dict)
    artefact = opened(content[:-1])
    with pytest.raises(BadArtefact, match=r"the file ends inside 'kept\.linear\.bias'"):
        artefact.state_dict()


def test_a_later_version_is_refused_by_number() -> None:
    state_dict = resnet8()
    content, _ = written(untrained(state_dict), state_dict)
    with pytest.raises(BadArtefact, match="version 9"):
        opened(content.replace(b'\\"version\\": 3', b'\\"version\\": 9', 1))


def test_tied_weights_are_stored_once_and_come_back_under_each_name() -> None:
    tied, norm = torch.randn(4, 4, 3, 3), torch.ones(4)
    state_dict = {"b.weight": tied, "b.norm": norm, "a.weight": tied, "a.norm": norm}
    layers = {"b.weight": tied, "b.norm": norm}
    content, nbytes = written(untrained(layers), state_dict)
    found = opened(content)
    assert (found.names, found.aliases) == (["b.weight", "b.norm"], {"a.weight": "b.weight", "a.norm": "b.norm"})
    rebuilt = found.state_dict()
    assert rebuilt.keys() == state_dict.keys()
    assert torch.equal(rebuilt["a.weight"], rebuilt["b.weight"])
    assert torch.equal(rebuilt["a.norm"], norm)
    assert nbytes.kept == 16


def test_only_an_artefact_with_tied_weights_has_a_version_that_release_0_1_0_does_not_read() -> None:
    tied = torch.randn(4, 4, 3, 3)
    versions = []
    for state_dict in ({"a.weight": tied}, {"a.weight": tied, "b.weight": tied}):
        content, _ = written(untrained({"a.weight": tied}), state_dict)
        versions.append(3 if b'\\"version\\": 3' in content else 4)
    assert versions == [3, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("form", CASES)
def test_a_layer_comes_back_in_the_form_that_it_had(form: str, dtype: torch.dtype) -> None:
    network = torch.nn.ModuleDict({"a": torch.nn.Conv2d(3, 4, 3), "b": made(form), "c": torch.nn.Conv2d(4, 2, 1)}).eval()
    state_dict = half(network.state_dict(), dtype)
    representation = untrained(state_dict)
    assert [layer.name for layer in representation.layers] == ["a.weight", "b.weight", "c.weight"]
    content, nbytes = written(representation, state_dict)
    assert nbytes.total == len(content)
    rebuilt = opened(content).state_dict()
    assert [(name, t.shape, t.dtype) for name, t in rebuilt.items()] == [
        (name, t.shape, t.dtype) for name, t in state_dict.items()
    ]
    network.load_state_dict(rebuilt, strict=True)
    module = network["b"]
    module(inputs_of(module))
    weight = render_layer(representation, 1).float()
    if form == "pruned":
        weight = weight * state_dict["b.weight_mask"]
    torch.testing.assert_close(weight_of(module), weight, rtol=1e-3 if dtype == torch.float16 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("form", CASES)
def test_a_layer_that_is_not_represented_keeps_its_tensors(form: str) -> None:
    network = torch.nn.ModuleDict({"a": made(form), "c": torch.nn.Conv2d(4, 2, 1)})
    state_dict: StateDict = network.state_dict()
    content, _ = written(untrained({"c.weight": state_dict["c.weight"]}), state_dict)
    rebuilt = opened(content).state_dict()
    assert list(rebuilt) == list(state_dict)
    assert all(torch.equal(rebuilt[name], tensor) for name, tensor in state_dict.items() if name != "c.weight")


def test_the_axis_of_a_spectral_norm_is_that_of_the_original_weight() -> None:
    # Many channels as filters, and a rendered weight for which the product along the other axis is larger.
    [form] = Network(made("spectral norm, old, transposed").state_dict()).forms
    [other] = Network(made("spectral norm, old").state_dict()).forms
    assert (form.axis, other.axis) == (1, 0)


def test_releases_that_know_no_forms_refuse_an_artefact_with_one() -> None:
    content, _ = written(untrained(made("pruned").state_dict()), made("pruned").state_dict())
    assert b'\\"version\\": 5' in content
