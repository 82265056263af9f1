"""The state_dicts in a file: every dict, list or module in the tree of the file that may be the tensors of a network."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from nern.layers import StateDict
from nern.state_dicts.tree import Walk, as_tensor, joined, kind_of, unusable, worth

MAX_DEPTH = 12

# Entries of training checkpoints in which tensors are no weights of a network.
OTHERS = re.compile(
    r"optim|^opt(?:_|$)|sched|scaler|(?:^|_)rng|random|hyper_?param|(?:^|_)args?$|(?:^|_)cfg$|config|^loops$|^meta$|histor|^collected",
    re.IGNORECASE,
)

# The names under which training scripts save the tensors of a network, in the order in which they are chosen.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "module",
    "checkpoint",
    "teacher",
    "student",
    "generator",
    "netG",
    "netG_state_dict",
    "G",
    "gen",
    "encoder",
    "backbone",
)

# Networks beside the one that a sender means: they judge or guide its training.
SECONDARY = re.compile(
    r"disc(?:_|$)|discriminator|(?:^|_)net_?d\d*(?:_|$)|^d(?:is)?(?:_|$)|critic|criterion|loss|perceptual", re.IGNORECASE
)

AVERAGED = re.compile(r"(?:^|[_.])(?:ema|swa|avg|averaged?|averaging|shadow|lawa|polyak)(?:[_.]|$)|ema_|_ema", re.IGNORECASE)


@dataclass
class Candidate:
    """Some tensors of a file that may be a network.

    path: the keys on the way to it.
    state_dict: its tensors, under the names of the file.
    left_out: its entries that are no tensors, with what they are.
    unusable: its tensors that no network can be rebuilt with, with what they are.
    notes: sentences about it.
    averaged: whether its weights are averages over steps of a training.
    secondary: whether it judges or guides the training of another network.
    """

    path: tuple[str, ...]
    state_dict: StateDict
    left_out: dict[str, str] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    averaged: bool = False
    secondary: bool = False

    @property
    def key(self) -> str:
        """The path as text; `.` for the whole content of the file."""
        return joined(*self.path) or "."

    @property
    def rank(self) -> tuple[bool, bool, list[int]]:
        """The lower, the sooner it is chosen."""
        order = [WRAPPERS.index(part) if part in WRAPPERS else len(WRAPPERS) for part in self.path]
        return self.secondary, not self.averaged, order


def candidates(loaded: object, walk: Walk) -> list[Candidate]:
    """The state_dicts in the content of a file, in the order of the file. Raises NoStateDict for a tree that is too large."""
    found = [candidate for candidate in _in(loaded, (), walk) if worth(candidate.state_dict) or candidate.unusable]
    for candidate in found:
        candidate.averaged = any(AVERAGED.search(part) for part in candidate.path)
        candidate.secondary = any(SECONDARY.search(part) for part in candidate.path)
    return found


def _in(node: object, path: tuple[str, ...], walk: Walk) -> Iterator[Candidate]:
    entries = walk.entries(node)
    if not entries or len(path) > MAX_DEPTH or not walk.first_visit(node):
        return
    if "param_groups" in entries and "state" in entries:
        walk.met_optimizer = True
        return
    tensors = {name: tensor for name, value in entries.items() if (tensor := as_tensor(value)) is not None}
    inner = {
        name: value
        for name, value in entries.items()
        if name not in tensors and not OTHERS.search(name) and not isinstance(value, str | bytes)
    }
    if _is_network(tensors, entries):
        yield _of(path, entries, tensors, inner, walk)
        if any("." in name for name in tensors):
            inner = {name: value for name, value in inner.items() if "." not in name}
    elif nested := _nested(tensors, inner, walk):
        note = f"the tensors are in nested dicts in the file; they have dotted names here, as {next(iter(nested))!r}"
        yield Candidate(path, nested, notes=[note])
        return
    walk.met_optimizer = walk.met_optimizer or any(re.search("optim", name) for name in entries)
    for name, value in inner.items():
        yield from _in(value, (*path, name), walk)


def _is_network(tensors: dict[str, Tensor], entries: dict[str, object]) -> bool:
    dotted = any("." in name and tensor.ndim >= 2 for name, tensor in tensors.items())
    if any(unusable(value) for value in entries.values()):
        return True
    return worth(tensors) and (dotted or len(tensors) >= len(entries) / 2)


def _of(
    path: tuple[str, ...], entries: dict[str, object], tensors: dict[str, Tensor], inner: dict[str, object], walk: Walk
) -> Candidate:
    """The candidate of a node that holds tensors itself. Dicts of layers beside the tensors belong to it."""
    if not any("." in name for name in tensors):
        for name, value in list(inner.items()):
            layer: dict[str, Tensor] = {}
            if not _known(name) and _flatten(value, f"{name}.", layer, walk) and layer:
                tensors = tensors | layer
                del inner[name]
    candidate = _candidate(path, entries | tensors if tensors.keys() - entries.keys() else entries)
    if all(name.isdecimal() for name in tensors):
        candidate.notes.append("the tensors have no names in the file; they are named by their numbers")
    return candidate


def _candidate(path: tuple[str, ...], entries: dict[str, object]) -> Candidate:
    candidate = Candidate(path, {})
    for name, value in entries.items():
        if (tensor := as_tensor(value)) is not None:
            candidate.state_dict[name] = tensor
        elif (kind := unusable(value)) is not None:
            candidate.unusable[name] = kind
        elif "." in name or "extra_state" in name:
            candidate.left_out[name] = kind_of(value)
    return candidate


def _nested(tensors: dict[str, Tensor], inner: dict[str, object], walk: Walk) -> dict[str, Tensor]:
    """The tensors of a network that is saved as a dict for each layer, under dotted names; empty if the node is none.

    `tensors` are those beside the dicts. Scalars, such as the number of an epoch, are left out.
    """
    found: dict[str, Tensor] = {}
    if any(_known(name) for name in inner):
        return {}
    if not all(_flatten(value, f"{name}.", found, walk) for name, value in inner.items()) or not found:
        return {}
    return {name: tensor for name, tensor in tensors.items() if tensor.ndim} | found


def _known(name: str) -> bool:
    """Whether a key is that of a whole network."""
    return name in WRAPPERS or bool(AVERAGED.search(name) or SECONDARY.search(name))


def _flatten(node: object, prefix: str, found: dict[str, Tensor], walk: Walk) -> bool:
    """Adds the tensors in nested dicts to `found`, under dotted names. False if the node is a network by itself or no layer."""
    if (entries := walk.entries(node)) is None:
        return True
    if prefix.count(".") > MAX_DEPTH or "param_groups" in entries or any("." in name for name in entries):
        return False
    listed = isinstance(node, list | tuple)
    for name, value in entries.items():
        if (tensor := as_tensor(value)) is not None:
            found[prefix + name] = tensor
        # A name may have megabytes, so it is not made for a number or a text.
        elif walk.enters(value) and not _flatten(value, f"{prefix}{name}.", found, walk):
            return False
        if listed and found:
            return False
    return True
