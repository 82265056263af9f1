from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import nern.images
import nern.representation
from nern import losses
from nern.architectures import build
from nern.images import CPU
from nern.layers import StateDict
from nern.network import Network
from nern.request import PaperRequest
from nern.training import Progress, gradients, maps, train
from nern.training.gradients import LossWeights
from nern.training.targets import Targets
from tests.support.networks import images, odd, resnet8
from tests.support.representations import untrained


def grads(targets: Targets) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in targets.representation.predictor.parameters() if parameter.grad is not None]


def direct(targets: Targets, inputs: Tensor, weights: LossWeights) -> list[Tensor]:
    """The losses' gradient by automatic differentiation through everything at once."""
    representation = targets.representation
    index = torch.arange(len(representation.tiles))
    rendered = {
        representation.layers[layer].name: tiles.view(representation.layers[layer].shape)
        for layer, _, tiles in representation.render(index)
    }
    network = build("cifar/resnet8", resnet8())
    with maps.recorded(network) as theirs:
        teacher = network(inputs)
    with maps.recorded(network) as ours:
        student = functional_call(network, rendered, (inputs,))
    errors = [rendered[layer.name] - weight for layer, weight in zip(representation.layers, targets.weights, strict=True)]
    total = (
        weights.reconstruction * losses.reconstruction(errors, sum(layer.weights for layer in representation.layers))
        + weights.feature_maps * losses.feature_maps(theirs, ours)
        + weights.logits * losses.distillation(teacher, student, weights.eps)
    )
    return list(torch.autograd.grad(total, list(representation.predictor.parameters())))


@pytest.mark.parametrize(
    "weights",
    [
        LossWeights(logits=1.0),
        LossWeights(feature_maps=1.0),
        LossWeights(reconstruction=1.0, feature_maps=1e-2, logits=1e-1, eps=1e-4),
    ],
)
@pytest.mark.parametrize("chunk", [100, 16_384])
@pytest.mark.parametrize("kept", [0, gradients.MAX_KEPT_ACTIVATIONS], ids=["computed twice", "kept"])
@pytest.mark.parametrize(
    "portion", [3 * 3 * 8 * 8, nern.images.MICROBATCH_ELEMENTS], ids=["images in microbatches", "images at once"]
)
def test_the_two_stage_gradient_is_the_gradient(weights: LossWeights, chunk: int, kept: int, portion: int) -> None:
    state_dict = resnet8()
    targets = Targets(untrained(state_dict), state_dict, CPU)
    inputs = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = direct(targets, inputs, weights)
    with (
        patch.object(nern.representation, "RENDER_BATCH_TILES", chunk),
        patch.object(gradients, "MAX_KEPT_ACTIVATIONS", kept),
        patch.object(nern.images, "MICROBATCH_ELEMENTS", portion),
    ):
        gradients.all_at_once(build("cifar/resnet8", state_dict), targets, (inputs,), None, weights)
    found = grads(targets)
    assert all(gradient.abs().max() > 0 for gradient in found)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6 + 1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize("state_dict", [resnet8(), odd()])
def test_a_batch_of_any_size_is_reconstructed_in_chunks(state_dict: StateDict) -> None:
    targets = Targets(untrained(state_dict), state_dict, CPU)
    everything, found = torch.arange(len(targets.representation.tiles)), []
    for chunk in (nern.representation.RENDER_BATCH_TILES, 50):
        targets.representation.predictor.zero_grad()
        with patch.object(nern.representation, "RENDER_BATCH_TILES", chunk):
            loss = gradients.reconstruct(targets, everything)["reconstruction"]
        found.append([torch.tensor(loss), *grads(targets)])
    for at_once, in_chunks in zip(*found, strict=True):
        torch.testing.assert_close(in_chunks, at_once, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("layers", ["all", ["unused.weight"]], ids=["beside another", "alone"])
def test_a_layer_that_the_outputs_do_not_depend_on_is_no_obstacle(layers: Any) -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x).mean((2, 3))  # type: ignore[no-any-return]

    network = Unused().requires_grad_(False)
    state_dict = network.state_dict()
    represented = state_dict if layers == "all" else {name: state_dict[name] for name in layers}
    targets, inputs = Targets(untrained(represented), state_dict, CPU), torch.randn(2, 3, 8, 8)
    gradients.all_at_once(network, targets, (inputs,), None, LossWeights(logits=1.0, feature_maps=1.0))
    assert all(gradient.isfinite().all() for gradient in grads(targets))
    weights = targets.make_trainable()
    gradients.smooth(network, targets, (inputs,), 1.0)
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights)


def test_a_batch_of_kernels_carries_its_share_of_the_gradient() -> None:
    state_dict = resnet8()
    targets = Targets(untrained(state_dict), state_dict, CPU)
    network, inputs, weights = build("cifar/resnet8", state_dict), torch.randn(2, 3, 8, 8), LossWeights(logits=1.0)
    count = len(targets.representation.tiles)
    shares = []
    for index in (torch.arange(0, count, 2), torch.arange(1, count, 2), None):
        targets.representation.predictor.zero_grad()
        gradients.all_at_once(network, targets, (inputs,), index, weights)
        shares.append(grads(targets))
    for even, odd_ones, whole in zip(*shares, strict=True):
        torch.testing.assert_close(even + odd_ones, whole, rtol=1e-3, atol=1e-6)


def test_the_feature_maps_of_a_residual_network_are_norms_and_sums_before_the_activation() -> None:
    network = build("cifar/resnet8", resnet8())
    with torch.no_grad(), maps.recorded(network) as found:
        network(torch.randn(2, 3, 8, 8))
    assert len(found) == 7 + 3
    assert all((map < 0).any() for map in found)


def test_the_feature_maps_of_a_network_without_norms_are_its_convolutions() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.ReLU(inplace=True))
    with torch.no_grad(), maps.recorded(network) as found:
        network(torch.randn(2, 3, 8, 8))
    assert [map.shape[1] for map in found] == [4, 5]
    assert all((map < 0).any() for map in found)


def test_a_loss_without_weight_is_not_computed() -> None:
    seen: list[Progress] = []
    config = PaperRequest(steps=2, hidden=8, logit_weight=0.0, feature_map_weight=0.0)
    train(Network(resnet8(), "cifar/resnet8"), config, data=images(), on_progress=seen.append)
    assert [set(progress.losses) for progress in seen] == [{"reconstruction"}] * 2
