"""The targets of a training: the weights that the predictor is fitted to."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

import torch
from torch import Tensor

from nern.representation import Representation, root_mean_square


class Targets:
    """The target weights and the tiles that the predictor is fitted to, on the device of the training.

    original: the original weights of the layers, float32 (filters, channels, *kernel_size) each.
    weights: the target weights, in the same shapes. They are the original weights, unless the smoothing phase trains them
        (`make_trainable`, then `freeze`).
    fitted_tiles: the tiles that the predictor is fitted to, (tiles, width, *kernel_size) for each layer. They are cut from the
        target weights, unless the predictor is fitted to other weights, `fitted_to` (`fit_to`).
    unit: the root mean square of the original weights. Errors are in this unit.
    """

    def __init__(self, representation: Representation, state_dict: Mapping[str, Tensor], device: torch.device) -> None:
        self.representation = representation
        self.original = [state_dict[layer.name].float().to(device) for layer in representation.layers]
        self.weights = self.original
        self.unit = root_mean_square(self.original) or 1.0
        self.freeze()

    def freeze(self) -> None:
        """Ends the training of the target weights. From here on, the predictor is fitted to the target weights."""
        self.weights = [weight.detach() for weight in self.weights]
        self.fit_to(None)

    def fit_to(self, others: Sequence[Tensor] | None) -> None:
        """From here on, the predictor is fitted to other weights, in the shapes of the layers. None: to the target weights."""
        self.fitted_to = others
        # The tiles are views of the weights, unless the last tile of a filter overhangs. They take no memory of their own.
        tiles = self.representation.tiles
        self.fitted_tiles = [tiles.cut(number, weight) for number, weight in enumerate(others or self.weights)]

    def make_trainable(self) -> list[Tensor]:
        """Replaces the target weights by copies that have gradients, and returns the copies."""
        self.weights = [weight.clone().requires_grad_() for weight in self.weights]
        return self.weights

    @property
    def changed(self) -> bool:
        """Whether the target weights are other tensors than the original weights."""
        pairs = zip(self.weights, self.original, strict=True)
        return any(weight.data_ptr() != original.data_ptr() for weight, original in pairs)

    def restore(self, weights: Sequence[Tensor] | None, fitted_to: Sequence[Tensor] | None) -> None:
        """Restores `weights` and `fitted_to` of a snapshot.

        Trainable weights are changed in place, because an optimizer holds them.
        """
        device = self.representation.device
        restored = [weight.to(device) for weight in weights or self.original]
        if self.weights[0].requires_grad:
            with torch.no_grad():
                for weight, value in zip(self.weights, restored, strict=True):
                    weight.copy_(value)
        else:
            self.weights = restored
            self.freeze()
        if fitted_to:
            self.fit_to([weight.to(device) for weight in fitted_to])

    def named(self) -> dict[str, Tensor]:
        """The target weights by the names of their layers."""
        return {layer.name: weight for layer, weight in zip(self.representation.layers, self.weights, strict=True)}

    def grids(self) -> Iterator[Tensor]:
        """The tiles of each layer at their assigned coordinates: (filters, tiles, weights), with gradients."""
        tiles = self.representation.tiles
        for number, (layer, weight) in enumerate(zip(tiles.layers, self.weights, strict=True)):
            order = self.representation.positions(number).argsort()
            yield tiles.cut(number, weight).flatten(1)[order].view(layer.filters, tiles.per_filter[number], -1)

    def errors(self, index: Tensor) -> list[Tensor]:
        """The errors of the rendered tiles at sorted indices, int64 (n,), in units of `unit`, with gradients.

        There is one tensor (m, width, *kernel_size) for each layer that occurs. Weights that overhang have no error.
        """
        errors = []
        for layer, number, tiles in self.representation.render(index):
            error = (tiles - self.fitted_tiles[layer][number]) / self.unit
            inside = self.representation.tiles.inside(layer, number)
            errors.append(error if inside is None else error * inside.view(*inside.shape, *[1] * (error.ndim - 2)))
        return errors


def relative_error(rebuilt: Sequence[Tensor], weights: Sequence[Tensor]) -> float:
    """The norm of the error of all layers together over the norm of the weights, in the same shapes.

    If all weights are 0, this is the norm of the error.
    """
    # The squares of small weights would be 0 in float32.
    pairs = zip(rebuilt, weights, strict=True)
    errors = ((rendered.double() - target.double()).norm() for rendered, target in pairs)
    norms = (weight.double().norm() for weight in weights)
    error, norm = torch.stack([torch.stack(list(values)).norm() for values in (errors, norms)]).tolist()
    return float(error / (norm or 1.0))


def suspect(targets: Targets) -> str:
    """A sentence that says which layer a loss that is not finite may come from."""
    for layer, weight in targets.named().items():
        if not weight.isfinite().all():
            return f"the first layer whose smoothed weights are not finite is {layer!r}"
    errors = [
        (weight - target).norm().item() / max(target.norm().item(), 1e-30)
        for weight, target in zip(targets.representation.render_all(), targets.weights, strict=True)
    ]
    names = [layer.name for layer in targets.representation.layers]
    for name, error in zip(names, errors, strict=True):
        if not isfinite(error):
            return f"the first layer whose rebuilt weights are not finite is {name!r}"
    worst = max(range(len(errors)), key=errors.__getitem__)
    return f"all rebuilt weights are finite; {names[worst]!r} has the largest relative error, {errors[worst]:.3g}"
