"""The choice of one state_dict in the content of a file."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nern.errors import NoStateDict, UnknownKey
from nern.layers import StateDict
from nern.state_dicts.averages import with_averages
from nern.state_dicts.candidates import Candidate, candidates
from nern.state_dicts.text import NAMED, listed
from nern.state_dicts.tree import Walk


@dataclass(frozen=True)
class Found:
    """The chosen state_dict of a file.

    state_dict: the tensors under the names that they have in the file, prefixes included.
    key: where it is in the file, as `checkpoint.model`; `.` if it is the whole content of the file.
    keys: where the other state_dicts are that can be chosen.
    first: whether it is the one that is chosen without a key.
    notes: sentences about what was chosen, and what was left out.
    aliases: names of tensors that share the memory of another tensor, with the name of that one. Both are in `state_dict`.
    unusable: the names of tensors that no network can be rebuilt with, such as quantised ones, with what they are.
    """

    state_dict: StateDict
    key: str
    keys: list[str]
    first: bool
    notes: list[str]
    aliases: dict[str, str]
    unusable: dict[str, str]


def find_state_dict(loaded: object, key: str = "") -> Found:
    """The state_dict in the content of a file: the one at `key`, or the one that its sender most likely means.

    Networks that judge or guide the training of another come last. Averaged weights come before raw ones, because authors
    report the accuracy of these. Then the known names decide (`nern.state_dicts.candidates.WRAPPERS`), and then the order of
    the file. Names keep their prefixes. Raises NoStateDict, and UnknownKey if nothing that can be chosen is at `key`.
    """
    walk = Walk()
    found = sorted(with_averages(candidates(loaded, walk)), key=lambda candidate: candidate.rank)
    if not found:
        raise NoStateDict(_nothing(walk))
    chosen = next((candidate for candidate in found if candidate.key == key), None) if key else found[0]
    if chosen is None:
        raise UnknownKey(f"the file holds no state_dict {key[:200]!r}; it holds {listed(one.key for one in found)}")
    others = [candidate for candidate in found if candidate is not chosen]
    return Found(
        state_dict=chosen.state_dict,
        key=chosen.key,
        keys=list(dict.fromkeys(candidate.key for candidate in others)),
        first=chosen is found[0],
        notes=[*_choice(chosen, others), *chosen.notes, *_left_out(chosen)],
        aliases=aliases(chosen.state_dict),
        unusable=chosen.unusable,
    )


def aliases(state_dict: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The names of tensors that are the same memory as an earlier tensor, with the name of that one."""
    first: dict[object, str] = {}
    shared = {}
    for name, tensor in state_dict.items():
        if tensor.layout is torch.strided and not tensor.is_meta and tensor.numel():
            place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            if (original := first.setdefault(place, name)) != name:
                shared[name] = original
    return shared


def _choice(chosen: Candidate, others: list[Candidate]) -> list[str]:
    if not others:
        return []
    kind = "averaged weights" if chosen.averaged else "tensors"
    return [f"the {kind} at {chosen.key!r} were taken; `?key=` takes others: {listed(one.key for one in others)}"]


def _left_out(chosen: Candidate) -> list[str]:
    if not chosen.left_out:
        return []
    entries = [f"{name[:200]!r} ({kind[:100]})" for name, kind in list(chosen.left_out.items())[:NAMED]]
    more = f" and {len(chosen.left_out) - NAMED} more" if len(chosen.left_out) > NAMED else ""
    return [f"left out, because they are no tensors: {', '.join(entries)}{more}"]


def _nothing(walk: Walk) -> str:
    if walk.met_optimizer:
        return "the file holds the state of an optimizer, but no network: save model.state_dict()"
    return "the file was read, but it holds no state_dict: save model.state_dict()"
