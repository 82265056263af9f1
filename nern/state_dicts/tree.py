"""The tree of objects in a file, as far as state_dicts may be in it: entries by name, and tensors."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nern.errors import NoStateDict
from nern.layers import StateDict
from nern.stubs import QUANTISED, SPARSE, Stub

# Objects can refer to each other, so that few bytes make a tree of any size.
MAX_NODES = 200_000

# The kinds of numpy's dtypes that torch has tensors of.
ARRAYS = "biufc"


# Stubs for tensors: what they are, and what to do.
UNUSABLE = {
    QUANTISED: "quantised, and has no numbers that can be learnt; send the float state_dict of the network before quantisation",
    SPARSE: "sparse and too large to be stored as a dense tensor; leave it out, or save `tensor.to_dense()`",
}


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

    @staticmethod
    def enters(node: object) -> bool:
        """Whether an object has entries: whether it is a dict, a list, a tuple or an object."""
        return isinstance(node, Mapping | list | tuple | Stub)

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
    """What a value that is no tensor is: the name of its class."""
    return value.name if isinstance(value, Stub) else f"of type {type(value).__name__}"


def unusable(value: object) -> str | None:
    """What a value is if it stands for a tensor that no network can be rebuilt with, and what to do; else None."""
    return UNUSABLE.get(value.name) if isinstance(value, Stub) else None


def joined(*parts: str) -> str:
    """A path of the parts that are not empty."""
    return ".".join(part for part in parts if part)


def worth(tensors: StateDict) -> bool:
    """Whether tensors can be those of a network: one of them has two dimensions or more."""
    return any(tensor.ndim >= 2 for tensor in tensors.values())
