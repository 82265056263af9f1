"""What the predictor should output, gathered batch by batch: no table of all tiles is made."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from nern.representation import Representation, root_mean_square


class Targets:
    """The weights to rebuild, in the shapes of the layers (`weights`), and the tiles that the predictor is fitted to (`goals`).

    The weights are the `original` ones, unless a recipe trains them (`loosen`, then `settle`). The goals are cut from them,
    unless the predictor is to `follow` others.
    """

    def __init__(self, representation: Representation, state_dict: Mapping[str, Tensor], device: torch.device) -> None:
        self.representation = representation
        self.original = [state_dict[layer.name].float().to(device) for layer in representation.layers]
        self.weights = self.original
        self.unit = root_mean_square(self.original) or 1.0
        self.settle()

    def settle(self) -> None:
        """Takes the weights as they are now for what the predictor is fitted to."""
        self.weights = [weight.detach() for weight in self.weights]
        self.follow(None)

    def follow(self, others: Sequence[Tensor] | None) -> None:
        """Takes other weights, of the same shapes, for what the predictor is fitted to; None for the own ones."""
        self._followed = others
        # Views of the weights, unless a filter's last tile overhangs.
        self.goals = [self.representation.tiles.cut(number, weight) for number, weight in enumerate(others or self.weights)]

    def loosen(self) -> list[Tensor]:
        """Copies of the weights that can be trained, from now on in place of them."""
        self.weights = [weight.clone().requires_grad_() for weight in self.weights]
        return self.weights

    def state_dict(self) -> dict[str, list[Tensor] | None]:
        """For `load_state_dict`: what differs from the original weights."""
        changed = any(ours.data_ptr() != theirs.data_ptr() for ours, theirs in zip(self.weights, self.original, strict=True))
        return {
            "weights": [weight.detach() for weight in self.weights] if changed else None,
            "followed": list(self._followed) if self._followed else None,
        }

    def load_state_dict(self, state: Mapping[str, list[Tensor] | None]) -> None:
        """Takes over the weights and what is followed; weights that are being trained change in place."""
        device = self.representation.device
        weights = [weight.to(device) for weight in state["weights"] or self.original]
        if self.weights[0].requires_grad:
            with torch.no_grad():
                for ours, theirs in zip(self.weights, weights, strict=True):
                    ours.copy_(theirs)
        else:
            self.weights = weights
            self.settle()
        if state["followed"]:
            self.follow([weight.to(device) for weight in state["followed"]])

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
            error = (tiles - self.goals[layer][number]) / self.unit
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
