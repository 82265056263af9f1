"""What the predictor should output, gathered batch by batch: no table of all kernels is made."""

from collections.abc import Mapping

import torch
from torch import Tensor

from nern.representation import Representation


class Targets:
    """The original kernels, addressed by flat index."""

    def __init__(self, representation: Representation, state_dict: Mapping[str, Tensor], device: torch.device) -> None:
        self.representation = representation
        self.weights = [state_dict[layer.name].float().to(device) for layer in representation.layers]

    def errors(self, index: Tensor) -> list[Tensor]:
        """Rebuilt minus original at sorted flat indices, in units of the representation's scale, with gradients.

        One tensor (n, *size) for each layer that occurs.
        """
        return [
            (kernels - self.weights[layer].flatten(0, 1)[number]) / self.representation.scale
            for layer, number, kernels in self.representation.render(index)
        ]
