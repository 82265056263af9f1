"""The gradients of one step.

Each function adds the gradients to the `grad` of the trained parameters, and returns the values of the losses by name.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nern import losses
from nern.images import microbatches
from nern.representation import Representation, render_batches
from nern.teachers import Batch, Outputs, call
from nern.training import maps
from nern.training.targets import Targets

# The most activations of the predictor that are kept for the backward pass: 1 GiB in float32. More are computed a second time.
MAX_KEPT_ACTIVATIONS = 2**28


OutputLoss = Callable[[Outputs, Outputs, float], Tensor]
"""The distillation loss of the outputs of teacher and student: a scalar. The number is `LossWeights.eps`."""


def of_logits(teacher: Outputs, student: Outputs, eps: float = 0.0) -> Tensor:
    """The distillation loss of a network whose only output has logits."""
    [(name, logits)] = teacher.items()
    return losses.distillation(logits, student[name], eps)


def reconstruct(targets: Targets, index: Tensor) -> dict[str, float]:
    """Computes the gradients of the mean squared error of the tiles at sorted indices, int64 (n,).

    The error is in units of the root mean square of all original weights.
    """
    weights, total = targets.representation.tiles.count_weights(index), 0.0
    for batch in render_batches(index):
        loss = torch.stack([error.square().sum() for error in targets.errors(batch)]).sum() / weights
        loss.backward()
        total += loss.item()
    return {"reconstruction": total}


@dataclass(frozen=True)
class LossWeights:
    """The weights of the losses. A loss of weight 0 is not computed.

    `logits` is the weight of the distillation loss. `eps` is added to the probabilities of the student in that loss.
    """

    reconstruction: float = 0.0
    feature_maps: float = 0.0
    logits: float = 0.0
    eps: float = 0.0


def all_at_once(
    network: nn.Module | None,
    targets: Targets,
    inputs: Batch | None,
    index: Tensor | None,
    weights: LossWeights,
    output_loss: OutputLoss = of_logits,
) -> dict[str, float]:
    """Computes the gradients of the weighted sum of the losses with respect to the predictor.

    `network` is the teacher, and with rendered weights the student. `inputs` has a tensor (B, ...) for each input of the
    network, on the device of the network. Without network and inputs, only the reconstruction loss is possible. `index` has the
    sorted indices, int64 (n,), of the tiles through which the gradients flow, or is None for all tiles. A tile that occurs
    twice counts twice. With all tiles, the gradient is exact. `output_loss` is the distillation loss.

    The gradients are computed in two parts, so that the memory for activations does not grow with the number of tiles. First,
    the gradients of the losses with respect to all rendered weights are computed. Then the chosen tiles are rendered again,
    and the gradients flow through these tiles into the predictor. If all tiles are chosen and have at most
    MAX_KEPT_ACTIVATIONS activations, they are rendered only once.
    """
    representation = targets.representation
    count = len(representation.tiles)
    kept = index is None and count * representation.predictor.config.activations <= MAX_KEPT_ACTIVATIONS
    predicted = representation.render_all(gradients=kept)
    rendered = [weight.detach().requires_grad_() for weight in predicted]
    factors = {"reconstruction": weights.reconstruction, "feature_maps": weights.feature_maps, "distillation": weights.logits}
    gradients = [torch.zeros_like(weight) for weight in rendered]
    totals: dict[str, float] = {}
    for share, values in _losses(network, targets, rendered, inputs, weights, output_loss):
        loss = torch.stack([share * factors[name] * value for name, value in values.items()]).sum()
        # The loss has no gradient if no represented layer affects the outputs, such as the layers of an auxiliary classifier.
        if loss.requires_grad:
            parts = torch.autograd.grad(loss, rendered, allow_unused=True, materialize_grads=True)
            for gradient, part in zip(gradients, parts, strict=True):
                gradient += part
        # One `tolist` for all losses, because each one waits for the GPU.
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
    inputs: Batch | None,
    weights: LossWeights,
    output_loss: OutputLoss,
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """The losses, one microbatch of inputs at a time: yields the share of the microbatch in the mean, and scalars by name."""
    layers = targets.representation.layers
    if weights.reconstruction:
        errors = [weight - target for weight, target in zip(rendered, targets.weights, strict=True)]
        yield 1.0, {"reconstruction": losses.reconstruction(errors, sum(layer.weights for layer in layers))}
    if network is not None and inputs is not None and (weights.feature_maps or weights.logits):
        named = {layer.name: weight for layer, weight in zip(layers, rendered, strict=True)}
        for microbatch in microbatches(inputs):
            yield len(microbatch[0]) / len(inputs[0]), _distillation(network, named, microbatch, weights, output_loss)


def _distillation(
    network: nn.Module, rendered: dict[str, Tensor], inputs: Batch, weights: LossWeights, output_loss: OutputLoss
) -> dict[str, Tensor]:
    """The feature map loss and the distillation loss of one microbatch, each if it has a weight."""
    with torch.no_grad(), maps.recorded(network, enabled=weights.feature_maps > 0) as teacher_maps:
        teacher = call(network, {}, inputs)
    with maps.recorded(network, enabled=weights.feature_maps > 0) as student_maps:
        student = call(network, rendered, inputs)
    values = {"feature_maps": losses.feature_maps(teacher_maps, student_maps)} if weights.feature_maps else {}
    return values | ({"distillation": output_loss(teacher, student, weights.eps)} if weights.logits else {})


def smooth(
    network: nn.Module, targets: Targets, inputs: Batch, weight: float, output_loss: OutputLoss = of_logits
) -> dict[str, float]:
    """Computes the gradients of the distillation loss minus `weight` times the smoothness, for the weights of the targets.

    `network` is the teacher, and with the targets' weights the student. `inputs` has a tensor (B, ...) for each input of the
    network, on the device of the network. `output_loss` is the distillation loss.
    """
    smoothness = torch.stack([losses.smoothness(grid) for grid in targets.grids()]).sum()
    (-weight * smoothness).backward()
    total = 0.0
    for microbatch in microbatches(inputs):
        with torch.no_grad():
            teacher = call(network, {}, microbatch)
        student = call(network, targets.named(), microbatch)
        loss = output_loss(teacher, student, 0.0) * (len(microbatch[0]) / len(inputs[0]))
        # The loss has no gradient if no represented layer affects the outputs, such as the layers of an auxiliary classifier.
        if loss.requires_grad:
            loss.backward()
        total += loss.item()
    return {"distillation": total, "smoothness": smoothness.item()}


def pull_back(representation: Representation, gradients: Sequence[Tensor], index: Tensor) -> None:
    """Computes the gradients of the predictor from the gradients of all rendered weights, in the shapes of the layers.

    The gradients flow through the tiles at sorted indices, int64 (n,).
    """
    cut = [representation.tiles.cut(layer, gradient) for layer, gradient in enumerate(gradients)]
    for batch in render_batches(index):
        tiles, tile_gradients = [], []
        for layer, number, rendered in representation.render(batch):
            tiles.append(rendered)
            tile_gradients.append(cut[layer][number])
        torch.autograd.backward(tiles, tile_gradients)
