"""Finding the state_dict in what people save around it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from nern.layers import StateDict, find_layers
from nern.tensorfile import NAMES
from service.inspection.refusal import Refusal

# Where training scripts put the weights, the better ones first: averaged weights are what gets evaluated.
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema",
    "ema_state_dict",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "module",
)

# The largest networks have some thousands of tensors, and kernels of 31 x 31.
MAX_TENSORS = 50_000
MAX_KERNEL = 64
MAX_NAME = 1000
MAX_NAMES = 2**20  # characters of all names together: whoever lists checkpoints reads them

# What wrappers put in front of every name.
PREFIX = re.compile(r"(?:module|_orig_mod|model|net|network)\.")


def find_state_dict(loaded: object) -> StateDict:
    """The state_dict inside a checkpoint, without common prefixes. Raises Refusal if there is none."""
    found = next(_candidates(loaded), None)
    if found is None:
        raise Refusal("not-a-checkpoint", "the file was read, but it holds no state_dict: save model.state_dict()")
    names = list(found)
    while (first := PREFIX.match(names[0])) and all(name.startswith(first[0]) for name in names):
        names = [name.removeprefix(first[0]) for name in names]
    return dict(zip(names, found.values(), strict=True))


def check(state_dict: StateDict) -> None:
    """Raises Refusal for tensors that can't be stored, or whose values are not numbers."""
    if len(state_dict) > MAX_TENSORS:
        raise Refusal("too-demanding", f"the checkpoint has more than {MAX_TENSORS} tensors")
    if sum(map(len, state_dict)) > MAX_NAMES:
        raise Refusal("too-demanding", f"the names of the tensors have more than {MAX_NAMES} characters")
    for name, tensor in state_dict.items():
        if not name.isprintable() or len(name) > MAX_NAME or name == "__metadata__":
            raise Refusal("not-a-checkpoint", f"{name[:50]!a} can't be the name of a tensor")
        if tensor.is_meta:
            raise Refusal("unsupported-tensor", f"tensor {name!r} has no values: it was saved from the meta device")
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.dtype not in NAMES:
            kind = tensor.dtype if tensor.layout is torch.strided else tensor.layout
            raise Refusal("unsupported-tensor", f"tensor {name!r} is {kind}; convert it to a floating-point or integer dtype")
        if tensor.is_floating_point() and not _finite(tensor):
            raise Refusal("non-finite-weights", f"tensor {name!r} holds NaN, infinity or values that no float32 can hold")
    layers = find_layers(state_dict)
    for layer in layers:
        if max(layer.size) > MAX_KERNEL:
            raise Refusal("unsupported-tensor", f"the kernels of {layer.name!r} are larger than {MAX_KERNEL} in a dimension")
    if not layers:
        raise Refusal("no-convolutions", "the checkpoint has no convolution (a weight with 3 to 5 dimensions) to represent")


def _candidates(loaded: object, depth: int = 0) -> Iterator[StateDict]:
    if not isinstance(loaded, Mapping) or depth > 3:
        return
    for key in WRAPPERS:
        yield from _candidates(loaded.get(key), depth + 1)
    tensors: dict[str, Tensor] = {
        key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Tensor)
    }
    if tensors and len(tensors) >= len(loaded) / 2:
        yield tensors


def _finite(tensor: Any) -> bool:
    # Piece by piece, so that a large tensor does not need its size again.
    return all(bool(piece.float().isfinite().all()) for piece in tensor.reshape(-1).split(2**22))
