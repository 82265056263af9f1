"""What the predictor should output, gathered batch by batch: no table of all tiles is made."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from nern.representation import Representation, root_mean_square


class Targets:
    """The weights to rebuild, in the shapes of the layers (`weights`), and the tiles that the predictor is fitted to
    (`fitted_tiles`).

    The weights are the `original` ones, unless a phase trains them (`make_trainable`, then `freeze`). The tiles are cut from
    the weights, unless the predictor is fitted to others (`fit_to`).
    """

    def __init__(self, representation: Representation, state_dict: Mapping[str, Tensor], device: torch.device) -> None:
        self.representation = representation
        self.original = [state_dict[layer.name].float().to(device) for layer in representation.layers]
        self.weights = self.original
        self.unit = root_mean_square(self.original) or 1.0
        self.freeze()

    def freeze(self) -> None:
        """Ends a training of the weights. The predictor is fitted to them as they are."""
        self.weights = [weight.detach() for weight in self.weights]
        self.fit_to(None)

    def fit_to(self, others: Sequence[Tensor] | None) -> None:
        """From here on the predictor is fitted to other weights of the same shapes; None: to `weights`."""
        self.fitted_to = others
        # Views of the weights, unless the last tile of a filter overhangs.
        tiles = self.representation.tiles
        self.fitted_tiles = [tiles.cut(number, weight) for number, weight in enumerate(others or self.weights)]

    def make_trainable(self) -> list[Tensor]:
        """Replaces the weights by copies that have gradients, and returns the copies."""
        self.weights = [weight.clone().requires_grad_() for weight in self.weights]
        return self.weights

    @property
    def changed(self) -> bool:
        """Whether the weights are not the original ones."""
        return any(ours.data_ptr() != theirs.data_ptr() for ours, theirs in zip(self.weights, self.original, strict=True))

    def restore(self, weights: Sequence[Tensor] | None, fitted_to: Sequence[Tensor] | None) -> None:
        """Takes over `weights` (None: the original ones) and `fitted_to` of a snapshot. Trainable weights change in place."""
        device = self.representation.device
        restored = [weight.to(device) for weight in weights or self.original]
        if self.weights[0].requires_grad:
            with torch.no_grad():
                for ours, theirs in zip(self.weights, restored, strict=True):
                    ours.copy_(theirs)
        else:
            self.weights = restored
            self.freeze()
        if fitted_to:
            self.fit_to([weight.to(device) for weight in fitted_to])

    def named(self) -> dict[str, Tensor]:
        """The weights by the names of their layers."""
        return {layer.name: weight for layer, weight in zip(self.representation.layers, self.weights, strict=True)}

    def grids(self) -> Iterator[Tensor]:
        """Every layer's tiles where the permutation puts them: (filters, tiles, weights), with gradients."""
        tiles = self.representation.tiles
        for number, (layer, weight) in enumerate(zip(tiles.layers, self.weights, strict=True)):
            order = self.representation.positions(number).argsort()
            yield tiles.cut(number, weight).flatten(1)[order].view(layer.filters, tiles.per_filter[number], -1)

    def errors(self, index: Tensor) -> list[Tensor]:
        """Rebuilt minus target at sorted flat indices, in units of the original weights' root mean square, with gradients.

        One tensor for each layer that occurs, with zeros for what overhangs.
        """
        errors = []
        for layer, number, tiles in self.representation.render(index):
            error = (tiles - self.fitted_tiles[layer][number]) / self.unit
            inside = self.representation.tiles.inside(layer, number)
            errors.append(error if inside is None else error * inside.view(*inside.shape, *[1] * (error.ndim - 2)))
        return errors


def relative_error(rebuilt: Sequence[Tensor], weights: Sequence[Tensor]) -> float:
    """The norm of the error of all layers together over the norm of the weights, or over 1 if that is 0."""
    # In float64, where squares of small weights are not zero.
    errors = ((ours.double() - theirs.double()).norm() for ours, theirs in zip(rebuilt, weights, strict=True))
    norms = (weight.double().norm() for weight in weights)
    error, norm = torch.stack([torch.stack(list(values)).norm() for values in (errors, norms)]).tolist()
    return float(error / (norm or 1.0))
