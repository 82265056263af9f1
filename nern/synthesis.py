"""Images out of a network itself: inputs that give its batch norms the statistics which they remember.

After DeepInversion (Yin et al., arXiv 1912.08795): random images are changed by gradient descent until the mean and variance
of every channel that enters a batch norm are those of the training data, and every image is of a class drawn for it.
"""

import torch
from torch import Tensor, nn

from nern.images import mirror_and_shift

# Weight of the cross-entropy of the drawn classes beside the batch norms' statistics.
CLASS_WEIGHT = 0.1


class Synthesised:
    """A pool of images (n, channels, height, width), made in groups, out of which batches are drawn."""

    def __init__(self, shape: tuple[int, int, int], count: int, group: int, generator: torch.Generator) -> None:
        self.groups = [nn.Parameter(part) for part in torch.randn(count, *shape, generator=generator).split(group)]

    def batch(self, size: int, generator: torch.Generator) -> Tensor:
        """`size` images of the pool, drawn with replacement, mirrored and shifted: (size, channels, height, width)."""
        pool = torch.cat([group.detach() for group in self.groups])
        chosen = torch.randint(len(pool), (size,), generator=generator)
        return mirror_and_shift(pool[chosen], generator)
