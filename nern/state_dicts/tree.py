"""The tree of objects in a file, as far as state_dicts may be in it: entries by name, tensors, whole modules."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from nern.errors import NoStateDict
from nern.layers import StateDict
from nern.stubs import QUANTISED, Stub

# Objects can refer to each other, so that few bytes make a tree of any size.
MAX_NODES = 200_000

# The kinds of numpy's dtypes that torch has tensors of.
ARRAYS = "biufc"


QUANTISED_KIND = "a quantised tensor"


class Walk:
    """A walk through a tree, which counts the nodes that it enters, and notes the states of optimizers that it meets."""

    def __init__(self) -> None:
        self._left = MAX_NODES
        self._met: set[int] = set()
        self.met_optimizer = False

    def first_visit(self, node: object) -> bool:
        """Whether this object is met for the first time. The tree keeps all its objects alive, so an id stays that of one."""
        first = id(node) not in self._met
        self._met.add(id(node))
        return first

    def entries(self, node: object) -> dict[str, object] | None:
        """The entries of a dict, a list, a tuple or an object, by key, number or attribute; None for anything else.

        Raises NoStateDict if the tree is too large.
        """
        entries: Mapping[object, object]
        if isinstance(node, Mapping):
            entries = node
        elif isinstance(node, list | tuple):
            entries = dict(enumerate(node))
        elif isinstance(node, Stub):
            attributes = dict(node.state) if isinstance(node.state, Mapping) else {}
            entries = dict(enumerate(node.elements)) | node.items | attributes
        else:
            return None
        self._left -= 1 + len(entries)
        if self._left < 0:
            raise NoStateDict("the file holds too many nested objects: save model.state_dict()")
        return {str(key): value for key, value in entries.items() if isinstance(key, str | int)}


def as_tensor(value: object) -> Tensor | None:
    """A tensor, or a numeric array as a tensor; None for anything else."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in ARRAYS:
        native = np.array(value, value.dtype.newbyteorder("="), order="C")
        try:
            return torch.from_numpy(native)
        except TypeError:  # numbers of more than 64 bits
            return None
    return None


def kind_of(value: object) -> str:
    """What a value that is no tensor is, in a word or a name of a class."""
    if isinstance(value, Stub):
        return QUANTISED_KIND if value.name == QUANTISED else value.name
    if isinstance(value, Mapping):
        return "a dict"
    return f"of type {type(value).__name__}"


def is_module(node: object) -> bool:
    """Whether a node is a whole module that was pickled."""
    return isinstance(node, Stub) and isinstance(node.state, Mapping) and {"_parameters", "_modules"} <= node.state.keys()


def module_entries(module: object, walk: Walk, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The entries of the state_dict of a whole module, in torch's order. Buffers that are not persistent are left out."""
    state = (walk.entries(module) if is_module(module) else None) or {}
    transient = set(_texts(state.get("_non_persistent_buffers_set"), walk))
    for kind in ("_parameters", "_buffers"):
        for name, value in (walk.entries(state.get(kind)) or {}).items():
            if value is not None and name not in transient:
                yield prefix + name, value
    for name, child in (walk.entries(state.get("_modules")) or {}).items():
        yield from module_entries(child, walk, f"{prefix}{name}.")


def _texts(node: object, walk: Walk) -> Iterator[str]:
    """The text in a list or set, or in a stub of one."""
    if isinstance(node, set | frozenset):
        node = list(node)
    if isinstance(node, Stub):
        node = [*node.elements, *node.arguments]
    for value in (walk.entries(node) or {}).values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | tuple | set | frozenset):
            yield from _texts(value, walk)


def joined(*parts: str) -> str:
    """A path of the parts that are not empty."""
    return ".".join(part for part in parts if part)


def worth(tensors: StateDict) -> bool:
    """Whether tensors can be those of a network: one of them has two dimensions or more."""
    return any(tensor.ndim >= 2 for tensor in tensors.values())
