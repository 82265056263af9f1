"""The tensors of a state_dict that a predictor can represent.

The coordinate of a *kernel* is (layer, filter, channel). The kernel connects the input channel `channel` to the output channel
`filter` of the represented layer with the number `layer`. A transposed convolution stores its input channels in the first
dimension of its weight. For such a layer, `filter` is the input channel.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nern.errors import NotRepresentable

StateDict = dict[str, Tensor]

REPRESENTED = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
"""The dtypes of weights that can be represented. Floats of eight bits can't be told from what quantisation made of them."""

# Names of weights that do not end in "weight": those of Keras, JAX and hand-written networks. `weight_bar` is the weight behind
# a spectral norm that computes all its vectors anew. Keras 3 numbers the variables of a layer: `vars/0`.
WEIGHT = re.compile(r"(?:^|[./_])(?:kernel|[wW]|weights|filters?)(?::0)?$|weight_bar$|(?:^|/)vars/\d+$")

KERAS = re.compile(r"(?:^|[./_])kernel(?::0)?$|(?:^|/)vars/\d+$")

# Parts of the names of four-dimensional tensors that are no convolutions: masks, tables of positions, statistics, and others
# that a network adds or multiplies.
KEPT = re.compile(
    r"mask|pos|embed|token|anchor|mean|std|var|coord|grid|scale|gamma|beta|bias|running|queue|bank|window|table|prior|freq|cache"
    r"|state|basis|noise|_val|zero_point|proto|weight_[gu]$|original0$",
    re.IGNORECASE,
)


class Described(Protocol):
    """A tensor, or a description that has the shape and the dtype of a tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...


@dataclass(frozen=True)
class TensorFacts:
    """The shape and the dtype of a tensor, without its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Layer:
    """The name, shape and dtype of the weight of a convolution or of a linear layer.

    The weight of a convolution has the shape (filters, channels, *kernel_size), where channels is the number of input channels
    divided by the number of groups. The weight of a linear layer has the shape (filters, channels).
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def filters(self) -> int:
        """The number of filters: the first extent of the weight."""
        return self.shape[0]

    @property
    def channels(self) -> int:
        """The number of channels of a filter: the second extent of the weight."""
        return self.shape[1]

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Extents of a kernel, one for each spatial dimension of the convolution. For a linear layer: (1, 1)."""
        return self.shape[2:] or (1, 1)

    @property
    def kernels(self) -> int:
        """The number of kernels."""
        return self.filters * self.channels

    @property
    def weights(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)


def find_layers(state_dict: Mapping[str, Described], weights: Collection[str] = ()) -> list[Layer]:
    """All convolutions (1-D, 2-D, 3-D, transposed, grouped), in the order of the state_dict.

    A convolution is recognised by its tensors: a floating-point weight with three to five dimensions, without a bias of the
    same shape. (Layer norms have such a bias.) A weight is called `weight`, or as in WEIGHT. A tensor with another name is a
    convolution if it has four or five dimensions, at least two of them with more than one element, and no name of KEPT.
    `weights` has the names of further tensors that are known to be weights.
    """
    return _weights(state_dict, range(3, 6), weights)


def find_linear(state_dict: Mapping[str, Described], weights: Collection[str] = ()) -> list[Layer]:
    """All linear layers, in the order of the state_dict. Tables of embeddings have the same shape and are among them.

    `weights` has the names of further tensors that are known to be weights.
    """
    return _weights(state_dict, range(2, 3), weights)


def select_layers(layers: Sequence[Layer], names: Iterable[str]) -> list[Layer]:
    """The layers of these names, in the order of `layers`.

    Raises NotRepresentable for a name that no layer has, and if no layer is selected.
    """
    wanted = set(names)
    if unknown := wanted - {layer.name for layer in layers}:
        raise NotRepresentable(
            f"{sorted(unknown)[0][:200]!r} is neither a convolution nor a linear layer of this network", "/layers"
        )
    if selected := [layer for layer in layers if layer.name in wanted]:
        return selected
    raise NotRepresentable("the network has no convolution to represent", "/layers")


def layout_notes(layers: Iterable[Layer]) -> list[str]:
    """Sentences about weights whose first dimensions seem to be the height and width of kernels, as in Keras."""
    last = [layer.name for layer in layers if KERAS.search(layer.name) and layer.shape[0] < layer.shape[-1]]
    if not last:
        return []
    others = f" and {len(last) - 1} more" if len(last) > 1 else ""
    return [
        f"{last[0]!r}{others} seem to have their channels in the last dimensions, as in Keras: they are represented as they "
        "are stored, and come back so"
    ]


def _weights(state_dict: Mapping[str, Described], dimensions: range, known: Collection[str]) -> list[Layer]:
    def normalises(name: str) -> bool:
        bias = state_dict.get(f"{name.removesuffix('weight')}bias")
        return bias is not None and bias.shape == state_dict[name].shape

    return [
        Layer(name, tuple(tensor.shape), tensor.dtype)
        for name, tensor in state_dict.items()
        if len(tensor.shape) in dimensions
        and tensor.dtype in REPRESENTED
        and (name in known or _is_weight(name, tensor.shape))
        and 0 not in tensor.shape
        and not normalises(name)
    ]


def _is_weight(name: str, shape: Sequence[int]) -> bool:
    if name.endswith("weight") or WEIGHT.search(name):
        return True
    return len(shape) >= 4 and sum(extent > 1 for extent in shape) >= 2 and not KEPT.search(name)
