"""Reparametrised weights are found, computed as torch computes them, and come back in the form that they had."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from nern.architectures.cifar import ResNet
from nern.facts import NetworkFacts
from nern.forms import Form, find_forms
from nern.graph.sequential import to_program
from nern.layers import StateDict
from nern.network import Network
from nern.teachers import call
from service.inspection.inspect import CheckpointFacts
from service.uploads.intake import Received, describe
from tests.support import programs
from tests.support.forms import CASES, inputs_of, made, pruned, weight_of


@pytest.fixture(params=CASES)
def module(request: pytest.FixtureRequest) -> nn.Module:
    """A convolution with a reparametrised weight, in eval mode."""
    return made(request.param)


def test_the_weight_is_what_torch_computes(module: nn.Module) -> None:
    [form] = find_forms(module.state_dict())
    assert form.weight == "weight"
    torch.testing.assert_close(form.compute(module.state_dict()), weight_of(module), rtol=1e-5, atol=1e-7)


def test_another_weight_comes_back_in_the_form(module: nn.Module) -> None:
    state_dict: StateDict = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    [form] = find_forms(state_dict)
    weight = weight_of(module) + 0.02 * torch.randn_like(weight_of(module)) * (weight_of(module) != 0)
    restored = form.restore(weight, state_dict)
    assert restored.keys() == set(form.rebuilt)
    assert {name: tensor.shape for name, tensor in restored.items()} == {name: state_dict[name].shape for name in restored}
    module.load_state_dict(state_dict | restored, strict=True)
    module(inputs_of(module))
    torch.testing.assert_close(weight_of(module), weight, rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_weight(module: nn.Module) -> None:
    [form] = find_forms(module.state_dict())
    weight = weight_of(module).requires_grad_()
    restored = form.restore(weight, module.state_dict())
    [gradient] = torch.autograd.grad(restored[form.parts[0]].sum(), weight)
    assert gradient.abs().sum() > 0


def test_names_keep_their_modules() -> None:
    network = nn.ModuleDict(
        {"a": nn.Sequential(parametrizations.weight_norm(nn.Conv2d(2, 3, 3))), "b": pruned(nn.Conv2d(3, 2, 1))}
    )
    assert [form.weight for form in find_forms(network.state_dict())] == ["a.0.weight", "b.weight"]


def test_other_tensors_are_not_taken_for_forms() -> None:
    shapes: StateDict = {
        "a_v": torch.zeros(4, 3, 3), "a_g": torch.zeros(5, 1, 1), "b_orig": torch.zeros(2, 2), "c_v": torch.zeros(2),
        "d_orig": torch.zeros(2, 3), "d_mask": torch.zeros(3, 2), "e_v": torch.zeros(3, 3), "e_g": torch.zeros(3, 1),
        "e": torch.zeros(3, 3),
    }  # fmt: skip
    assert find_forms(shapes) == []


def listed(state_dict: StateDict) -> list[str]:
    return [layer.name for layer in NetworkFacts(state_dict, None).convolutions]


def test_the_computed_weight_is_the_layer(module: nn.Module) -> None:
    assert listed(module.state_dict()) == ["weight"]


def test_what_is_no_layer_has_no_form() -> None:
    module = pruned(nn.Conv2d(4, 6, 3))
    prune.random_unstructured(module, "bias", 0.5)
    facts = NetworkFacts(module.state_dict(), None)
    assert [form.weight for form in facts.forms] == ["weight"]
    assert {"bias_orig", "bias_mask", "weight_mask"} < facts.own.keys()


def test_a_description_of_a_form_is_json(module: nn.Module) -> None:
    [form] = Network(module.state_dict()).forms
    assert Form.from_json(json.loads(json.dumps(form.to_json()))) == form


@pytest.mark.parametrize("form", CASES)
def test_a_program_takes_the_tensors_of_a_form(form: str) -> None:
    module = made(form)
    inputs = torch.cat([inputs_of(module)] * 3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The tensor attribute self.weight")  # the older implementations assign it
        graph = programs.network(module, inputs).build([tuple(inputs.shape[1:])])
    [found] = call(graph, {}, (inputs,)).values()
    torch.testing.assert_close(found, module(inputs), rtol=1e-4, atol=1e-5)
    weight = (weight_of(module) + 0.1 * torch.randn_like(weight_of(module))).requires_grad_()
    [found] = call(graph, {"weight": weight}, (inputs,)).values()
    assert torch.autograd.grad(found.square().sum(), weight, retain_graph=True)[0].abs().sum() > 0
    state_dict: StateDict = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    [of_module] = Network(state_dict).forms
    module.load_state_dict(state_dict | of_module.stored(weight.detach(), state_dict), strict=True)
    torch.testing.assert_close(found, module(inputs), rtol=1e-4, atol=1e-5)


def test_a_program_that_takes_the_weight_itself_gets_it_under_the_mask() -> None:
    module = pruned(nn.Conv1d(2, 3, 3))
    network = Network(module.state_dict())
    shapes = {name: tuple(tensor.shape) for name, tensor in network.facts.plain.items()}
    graph = replace(network, program=to_program(["conv"], shapes, [2, 9])).build()
    inputs, weight = torch.randn(2, 2, 9), torch.randn(3, 2, 3)
    [found] = call(graph, {"weight": weight}, (inputs,)).values()
    tensors = module.state_dict()
    torch.testing.assert_close(found, nn.functional.conv1d(inputs, weight * tensors["weight_mask"], tensors["bias"]))


REPARAMETRISED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "pruned": pruned,
}


@pytest.mark.parametrize("form", REPARAMETRISED)
def test_a_known_network_is_known_with_forms_too(form: str) -> None:
    torch.manual_seed(0)
    module = ResNet(8).eval()
    for convolution in [part for part in module.modules() if isinstance(part, nn.Conv2d)][1:5]:
        REPARAMETRISED[form](convolution)
    state_dict = {f"module.{name}": tensor.clone() for name, tensor in module.state_dict().items()}
    row = describe(
        Received(Path(), Path(), "", 1, ""),
        CheckpointFacts("torch-zip", state_dict, key=".", keys=[], first=True, notes=[], aliases={}),
    )
    assert row.architecture == "cifar/resnet8"
    network = Network(state_dict, row.architecture)
    network.facts.validate()
    graph, inputs = network.build(), torch.randn(2, 3, 32, 32)
    [found] = call(graph, {}, (inputs,)).values()
    torch.testing.assert_close(found, module(inputs), rtol=1e-4, atol=1e-5)

    changed = network.forms[0]
    weight = network.weights[changed.weight] + 0.1 * torch.randn_like(network.weights[changed.weight])
    [found] = call(graph, {changed.weight: weight}, (inputs,)).values()
    stored = changed.stored(weight, state_dict)
    module.load_state_dict(module.state_dict() | {name.removeprefix("module."): part for name, part in stored.items()})
    torch.testing.assert_close(found, module(inputs), rtol=1e-4, atol=1e-5)
