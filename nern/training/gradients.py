"""Gradients of one step. Each function leaves them in what is trained and returns the losses' values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nern import losses
from nern.images import microbatches
from nern.representation import Representation, render_batches
from nern.training import maps
from nern.training.targets import Targets

# The most activations of the predictor (float32) that are kept for the backward pass. More are computed a second time.
MAX_KEPT_ACTIVATIONS = 2**28


def reconstruct(targets: Targets, index: Tensor) -> dict[str, float]:
    """Of the mean squared error over the tiles at sorted flat indices, in units of all weights' root mean square."""
    weights, total = targets.representation.tiles.count_weights(index), 0.0
    for chunk in render_batches(index):
        loss = torch.stack([error.square().sum() for error in targets.errors(chunk)]).sum() / weights
        loss.backward()
        total += loss.item()
    return {"reconstruction": total}


@dataclass(frozen=True)
class LossWeights:
    """The total is their weighted sum; a loss of weight 0 is not computed."""

    reconstruction: float = 0.0
    feature_maps: float = 0.0
    logits: float = 0.0
    eps: float = 0.0


def all_at_once(
    network: nn.Module | None, targets: Targets, inputs_BCHW: Tensor | None, index: Tensor | None, weights: LossWeights
) -> dict[str, float]:
    """Of all losses that have a weight, as they reach the predictor through the tiles at sorted flat indices, or all tiles.

    The network is the teacher, and with rendered weights the student; without network and inputs there is only L_rec. First
    the losses' gradients with respect to all rendered weights are found; then the chosen tiles are rendered once more,
    unless all are and few enough to have been kept, and the gradients go on from them into the predictor. A tile that is
    chosen twice counts twice. With all tiles this is the exact gradient, at a memory that does not grow with their number.
    """
    representation = targets.representation
    count = len(representation.tiles)
    kept = index is None and count * representation.predictor.config.activations <= MAX_KEPT_ACTIVATIONS
    predicted = representation.render_all(gradients=kept)
    rendered = [weight.detach().requires_grad_() for weight in predicted]
    factors = {"reconstruction": weights.reconstruction, "feature_maps": weights.feature_maps, "distillation": weights.logits}
    gradients = [torch.zeros_like(weight) for weight in rendered]
    totals: dict[str, float] = {}
    for share, values in _losses(network, targets, rendered, inputs_BCHW, weights):
        loss = torch.stack([share * factors[name] * value for name, value in values.items()]).sum()
        # Layers that do nothing for the outputs, such as an auxiliary classifier's, have no gradient.
        if loss.requires_grad:
            parts = torch.autograd.grad(loss, rendered, allow_unused=True, materialize_grads=True)
            for gradient, part in zip(gradients, parts, strict=True):
                gradient += part
        # All at once, since a GPU is waited for each time.
        for name, value in zip(values, torch.stack(list(values.values())).tolist(), strict=True):
            totals[name] = totals.get(name, 0.0) + share * value
    if kept:
        torch.autograd.backward(predicted, gradients)
    else:
        pull_back(representation, gradients, torch.arange(count) if index is None else index)
    return totals


def _losses(
    network: nn.Module | None,
    targets: Targets,
    rendered: Sequence[Tensor],
    inputs_BCHW: Tensor | None,
    weights: LossWeights,
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """The losses in parts, as the inputs are taken in microbatches; each with its share of the mean over all inputs."""
    layers = targets.representation.layers
    if weights.reconstruction:
        errors = [ours - theirs for ours, theirs in zip(rendered, targets.weights, strict=True)]
        yield 1.0, {"reconstruction": losses.reconstruction(errors, sum(layer.weights for layer in layers))}
    if network is not None and inputs_BCHW is not None and (weights.feature_maps or weights.logits):
        named = {layer.name: weight for layer, weight in zip(layers, rendered, strict=True)}
        for some in microbatches(inputs_BCHW):
            yield len(some) / len(inputs_BCHW), _distillation(network, named, some, weights)


def _distillation(
    network: nn.Module, rendered: dict[str, Tensor], inputs_BCHW: Tensor, weights: LossWeights
) -> dict[str, Tensor]:
    """L_fmd and L_kd, if they have a weight."""
    with torch.no_grad(), maps.recorded(network, enabled=weights.feature_maps > 0) as theirs:
        teacher = network(inputs_BCHW)
    with maps.recorded(network, enabled=weights.feature_maps > 0) as ours:
        student = functional_call(network, rendered, (inputs_BCHW,))
    values = {"feature_maps": losses.feature_maps(theirs, ours)} if weights.feature_maps else {}
    return values | ({"distillation": losses.distillation(teacher, student, weights.eps)} if weights.logits else {})


def smooth(network: nn.Module, targets: Targets, inputs_BCHW: Tensor, weight: float) -> dict[str, float]:
    """Of L_kd minus `weight` times the targets' smoothness; here the targets' weights are what is trained."""
    smoothness = torch.stack([losses.smoothness(grid) for grid in targets.grids()]).sum()
    (-weight * smoothness).backward()
    total = 0.0
    for some in microbatches(inputs_BCHW):
        with torch.no_grad():
            teacher = network(some)
        student = functional_call(network, targets.named(), (some,))
        loss = losses.distillation(teacher, student) * (len(some) / len(inputs_BCHW))
        # The outputs may depend on none of the layers, such as those of an auxiliary classifier.
        if loss.requires_grad:
            loss.backward()
        total += loss.item()
    return {"distillation": total, "smoothness": smoothness.item()}


def pull_back(representation: Representation, gradients: Sequence[Tensor], index: Tensor) -> None:
    """Carries gradients with respect to all rendered weights on into the predictor, through the tiles at `index`."""
    cut = [representation.tiles.cut(layer, gradient) for layer, gradient in enumerate(gradients)]
    for chunk in render_batches(index):
        tiles, theirs = [], []
        for layer, number, rendered in representation.render(chunk):
            tiles.append(rendered)
            theirs.append(cut[layer][number])
        torch.autograd.backward(tiles, theirs)
