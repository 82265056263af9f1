"""Gradients of one step. Each function leaves them in the predictor's parameters and returns the losses' values."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nern import losses
from nern.representation import Representation
from nern.training import maps
from nern.training.targets import Targets

# Kernels rendered at a time: bounds the memory of a step, whatever the network's size.
CHUNK = 16_384


def reconstruct(targets: Targets, index: Tensor) -> dict[str, float]:
    """Of the mean squared error over the kernels at sorted flat indices, in units of the representation's scale."""
    errors = targets.errors(index)
    squared = torch.stack([error.square().sum() for error in errors]).sum()
    loss = squared / sum(error.numel() for error in errors)
    loss.backward()
    return {"reconstruction": loss.item()}


@dataclass(frozen=True)
class LossWeights:
    """The total is their weighted sum; a loss of weight 0 is not computed."""

    reconstruction: float = 0.0
    feature_maps: float = 0.0
    logits: float = 0.0
    eps: float = 0.0


def distil(network: nn.Module, targets: Targets, inputs_BCHW: Tensor, index: Tensor, weights: LossWeights) -> dict[str, float]:
    """Of the three losses, as they reach the predictor through the kernels at sorted flat indices.

    The network is the teacher, and with rendered weights the student. First the losses' gradients with respect to all
    rendered weights are found; then the chosen kernels are rendered once more, and the gradients go on from them into
    the predictor. With all kernels chosen this is the exact gradient, at a memory that does not grow with the network's
    number of kernels x the predictor's width.
    """
    representation = targets.representation
    inputs_BCHW = inputs_BCHW.to(representation.device)
    rendered = render_all(representation)
    leaves = {layer.name: weight.requires_grad_() for layer, weight in zip(representation.layers, rendered, strict=True)}
    values: dict[str, Tensor] = {}
    if weights.reconstruction:
        values["reconstruction"] = losses.reconstruction(
            [leaf - weight for leaf, weight in zip(rendered, targets.weights, strict=True)],
            sum(layer.weights for layer in representation.layers),
        )
    if weights.feature_maps:
        with torch.no_grad(), maps.recorded(network) as teacher_maps:
            teacher = network(inputs_BCHW)
        with maps.recorded(network) as student_maps:
            student = functional_call(network, leaves, (inputs_BCHW,))
        values["feature_maps"] = losses.feature_maps(teacher_maps, student_maps)
    else:
        with torch.no_grad():
            teacher = network(inputs_BCHW)
        student = functional_call(network, leaves, (inputs_BCHW,))
    values["distillation"] = losses.distillation(teacher, student, weights.eps)
    total = weights.logits * values["distillation"]
    if weights.reconstruction:
        total = total + weights.reconstruction * values["reconstruction"]
    if weights.feature_maps:
        total = total + weights.feature_maps * values["feature_maps"]
    pull_back(representation, torch.autograd.grad(total, rendered), index)
    return {name: value.item() for name, value in values.items()}


def render_all(representation: Representation) -> list[Tensor]:
    """All represented weights, without gradients, in the shapes of the layers."""
    rendered = [torch.empty(layer.shape, device=representation.device) for layer in representation.layers]
    with torch.no_grad():
        for index in torch.arange(len(representation.coordinates)).split(CHUNK):
            for layer, number, kernels in representation.render(index):
                rendered[layer].flatten(0, 1)[number] = kernels
    return rendered


def pull_back(representation: Representation, gradients: tuple[Tensor, ...], index: Tensor) -> None:
    """Carries gradients with respect to all rendered weights on into the predictor, through the kernels at `index`."""
    for chunk in index.split(CHUNK):
        kernels, theirs = [], []
        for layer, number, rendered in representation.render(chunk):
            kernels.append(rendered)
            theirs.append(gradients[layer].flatten(0, 1)[number])
        torch.autograd.backward(kernels, theirs)
