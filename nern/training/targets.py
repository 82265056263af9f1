"""What the predictor should output, gathered batch by batch: no table of all tiles is made."""

from collections.abc import Mapping

import torch
from torch import Tensor

from nern.representation import Representation, root_mean_square


class Targets:
    """The original weights, in the shapes of the layers (`weights`) and as tiles (`tiles`)."""

    def __init__(self, representation: Representation, state_dict: Mapping[str, Tensor], device: torch.device) -> None:
        self.representation = representation
        self.weights = [state_dict[layer.name].float().to(device) for layer in representation.layers]
        self.unit = root_mean_square(self.weights) or 1.0
        # Views of the weights, unless a filter's last tile overhangs.
        self.tiles = [representation.tiles.cut(number, weight) for number, weight in enumerate(self.weights)]

    def errors(self, index: Tensor) -> list[Tensor]:
        """Rebuilt minus original at sorted flat indices, in units of all weights' root mean square, with gradients.

        One tensor for each layer that occurs, without what overhangs.
        """
        errors = []
        for layer, number, tiles in self.representation.render(index):
            error = (tiles - self.tiles[layer][number]) / self.unit
            inside = self.representation.tiles.inside(layer, number)
            errors.append(error if inside is None else error[inside])
        return errors
