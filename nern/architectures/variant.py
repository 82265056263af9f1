"""One way to build an architecture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from nern.architectures.table import Kind


@dataclass(frozen=True)
class Variant:
    """One way to build an architecture.

    build: builds the network for a number of classes.
    classes: the number of classes of the published weights, 0 for a network without classes.
    image_size: the height and width of the images, in pixels.
    outputs: the kind of each output, by name.
    frames: the number of frames of a video, or 0 for images.
    rank, usual_classes: see `nern.architectures.table.Entry`.
    """

    build: Callable[[int], nn.Module]
    classes: int
    image_size: int
    outputs: Mapping[str, Kind] = field(default_factory=lambda: {"logits": "logits"})
    frames: int = 0
    rank: int = 2
    usual_classes: tuple[int, ...] = ()
