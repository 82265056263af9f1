"""The head of a network: its own last layer, or what somebody has put in its place. This module does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from nern.architectures.table import Shape

LayerKind = Literal["linear", "batch norm", "layer norm"]


@dataclass(frozen=True)
class HeadLayer:
    """A layer of a head. `name` is empty if the head is a single layer. `bias` is false for a linear layer without bias."""

    name: str
    kind: LayerKind
    inputs: int
    outputs: int
    bias: bool = True


@dataclass(frozen=True)
class Head:
    """What a file has in place of the head of an architecture.

    path: where the head is in the network.
    own: whether it is the architecture's own layer.
    layers: the layers in order; none if the head is missing.
    """

    path: str
    own: bool
    layers: tuple[HeadLayer, ...] = ()

    @property
    def classes(self) -> int:
        """The number of outputs of the last linear layer, or 0 if the head is missing."""
        return next((layer.outputs for layer in reversed(self.layers) if layer.kind == "linear"), 0)

    @property
    def activations(self) -> list[str]:
        """The names under which the head has a ReLU.

        The file tells the linear layers and the norms, but not what is between. Where there is room for another layer between
        two linear layers, a ReLU is taken to be in the first such place. Dropout has no effect in eval mode.
        """
        numbers = [layer.name for layer in self.layers]
        if not all(name.isdecimal() for name in numbers):
            linear = [layer.name for layer in self.layers if layer.kind == "linear"]
            return [f"{name}_relu" for name in linear[:-1]]
        taken = {int(name) for name in numbers}
        places = [int(layer.name) for layer in self.layers if layer.kind == "linear"]
        between = ((place for place in range(a, b) if place not in taken) for a, b in pairwise(places))
        return [str(place) for free in between if (place := next(free, None)) is not None]


def parse(path: str, shapes: Mapping[str, Shape], inputs: int) -> Head | None:
    """The head at `path`, from the shapes of its tensors by their names below the path; None if it is of another kind.

    It is one linear layer, or a sequence of linear layers, batch norms and layer norms that begins with `inputs` numbers.
    """
    children: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        child, _, leaf = name.rpartition(".")
        children.setdefault(child, {})[leaf] = shape
    if len(children) > 1 and "" in children:
        return None
    # The numbers are the order. They need not be in order in the file.
    numbered = all(name.isdecimal() for name in children)
    names = sorted(children, key=int) if numbered else list(children)
    layers = []
    width = inputs
    for name in names:
        layer = None if "." in name else _layer(name, children[name], width)
        if layer is None:
            return None
        layers.append(layer)
        width = layer.outputs
    head = Head(path, own=False, layers=tuple(layers))
    return head if head.classes else None


def _layer(name: str, shapes: Mapping[str, Shape], inputs: int) -> HeadLayer | None:
    weight = shapes.get("weight", ())
    if len(weight) == 2 and weight[1] == inputs and shapes.get("bias", weight[:1]) == weight[:1]:
        bias = "bias" in shapes
        return HeadLayer(name, "linear", inputs, weight[0], bias) if len(shapes) == 1 + bias else None
    if shapes == dict.fromkeys(("weight", "bias"), (inputs,)):
        return HeadLayer(name, "layer norm", inputs, inputs)
    if shapes == dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (inputs,)):
        return HeadLayer(name, "batch norm", inputs, inputs)
    return None
