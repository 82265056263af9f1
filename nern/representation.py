"""A neural representation: the layers it stands for, the predictor, and what turns its predictions into weights."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import hypot, sqrt

import torch
from torch import Tensor

from nern.layers import Coordinates, Layer
from nern.permutation import Check, PermutationKind, permute
from nern.predictor import Predictor, PredictorConfig


class Representation:
    """Predicts every kernel of `layers`.

    The kernel (l, i, j) is the centre crop of `scale` times the prediction at its permuted coordinate, where crops
    take rows and columns int(K/2 - k/2) to int(K/2 - k/2) + k, as the authors' code does.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        predictor: Predictor,
        *,
        permutation: PermutationKind,
        positions: Sequence[Tensor],
        scale: float,
    ) -> None:
        self.layers = tuple(layers)
        self.coordinates = Coordinates(layers)
        self.predictor = predictor
        self.permutation = permutation
        self.positions = tuple(positions)
        self.scale = scale
        # Flat index -> flat index of the coordinate assigned: 8 bytes a kernel, where a 3x3 kernel itself has 36.
        starts = self.coordinates.starts
        self._assigned = torch.cat([start + position for start, position in zip(starts, self.positions, strict=False)])

    @classmethod
    def untrained(
        cls,
        layers: Sequence[Layer],
        state_dict: Mapping[str, Tensor],
        config: PredictorConfig,
        *,
        permutation: PermutationKind,
        scaled: bool,
        check: Check = lambda: None,
    ) -> "Representation":
        """A predictor with fresh weights (torch's global generator), and the layers' permutations.

        `scaled` makes the root mean square of all that it has to predict 1, whatever the size of the weights.
        `check` is called now and then while paths are searched; what it raises ends that.
        """
        positions = [permute(state_dict[layer.name], permutation, check) for layer in layers]
        norm = hypot(*(state_dict[layer.name].double().norm().item() for layer in layers))
        scale = norm / sqrt(sum(layer.weights for layer in layers)) if scaled and norm else 1.0
        return cls(layers, Predictor(config, layers), permutation=permutation, positions=positions, scale=scale)

    def to(self, device: torch.device) -> "Representation":
        """The same representation, its predictor on `device`."""
        self.predictor.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return self.predictor.embedding.layer.device

    def predict(self, index: Tensor) -> Tensor:
        """Kernels before scaling and cropping, at flat indices (n,): float32 (n, height, width) with gradients.

        The indices live on the CPU, the result where the predictor is.
        """
        layer, filter, channel = self.coordinates.of(self._assigned[index])
        out: Tensor = self.predictor(layer.to(self.device), filter.to(self.device), channel.to(self.device))
        return out

    def kernels(self, layer: int, predicted: Tensor) -> Tensor:
        """Scales and crops predictions (n, height, width) for one layer: (n, *layer.size)."""
        (top, left), (height, width) = self._corner(layer), self.layers[layer].size
        return predicted[:, top : top + height, left : left + width] * self.scale

    def by_layer(self, index: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
        """Cuts sorted flat indices at the layers' borders: (layer, the slice of `index`, numbers inside the layer)."""
        borders = torch.searchsorted(index, torch.tensor(self.coordinates.starts)).tolist()
        for layer, (first, last) in enumerate(pairwise(borders)):
            if first < last:
                yield layer, slice(first, last), index[first:last] - self.coordinates.starts[layer]

    def render(self, index: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Kernels at sorted flat indices, with gradients: (layer, numbers inside the layer, kernels (n, *size)) for each
        layer that occurs.
        """
        predicted = self.predict(index)
        for layer, where, number in self.by_layer(index):
            yield layer, number, self.kernels(layer, predicted[where])

    def _corner(self, layer: int) -> tuple[int, int]:
        size = self.predictor.config.size
        top, left = (int(whole / 2 - part / 2) for whole, part in zip(size, self.layers[layer].size, strict=True))
        return top, left
