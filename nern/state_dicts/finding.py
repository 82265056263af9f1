"""The choice of one state_dict in the content of a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from nern.errors import NoStateDict, UnknownKey
from nern.layers import StateDict
from nern.state_dicts.averages import with_averages
from nern.state_dicts.candidates import Candidate, candidates
from nern.state_dicts.text import NAMED, listed
from nern.state_dicts.tree import QUANTISED_KIND, Walk

# Sparse tensors are stored as dense ones that have at most so many bytes together.
MAX_DENSE_BYTES = 2**20


@dataclass(frozen=True)
class Found:
    """The chosen state_dict of a file.

    state_dict: the tensors under the names that they have in the file, prefixes included.
    key: where it is in the file, as `checkpoint.model`; `.` if it is the whole content of the file.
    keys: where the other state_dicts are that can be chosen.
    first: whether it is the one that is chosen without a key.
    notes: sentences about what was chosen, and what was left out.
    aliases: names of tensors that share the memory of another tensor, with the name of that one. Both are in `state_dict`.
    quantised: the names of entries that stand for quantised tensors.
    """

    state_dict: StateDict
    key: str
    keys: list[str]
    first: bool
    notes: list[str]
    aliases: dict[str, str]
    quantised: list[str] = field(default_factory=list)


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
    if all("lora_" in name for name in chosen.state_dict):
        raise NoStateDict(
            "the file holds a LoRA, which is a change of a network: merge it into its network, and send the state_dict of that"
        )
    others = [candidate for candidate in found if candidate is not chosen]
    state_dict, made_dense = _dense(chosen.state_dict)
    return Found(
        state_dict=state_dict,
        key=chosen.key,
        keys=list(dict.fromkeys(candidate.key for candidate in others)),
        first=chosen is found[0],
        notes=[*_choice(chosen, others), *chosen.notes, *_left_out(chosen), *made_dense],
        aliases=aliases(state_dict),
        quantised=[name for name, kind in chosen.left_out.items() if kind == QUANTISED_KIND],
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


def _dense(state_dict: StateDict) -> tuple[StateDict, list[str]]:
    """The tensors, small sparse ones as dense ones, and a note about these."""
    made: StateDict = {}
    left = MAX_DENSE_BYTES
    for name, tensor in state_dict.items():
        nbytes = tensor.numel() * tensor.element_size()
        if tensor.layout is torch.sparse_coo and nbytes <= left and (dense := _to_dense(tensor)) is not None:
            made[name] = dense
            left -= nbytes
    return state_dict | made, [f"sparse in the file, and dense from here on: {listed(made)}"] if made else []


def _to_dense(tensor: torch.Tensor) -> torch.Tensor | None:
    """A sparse tensor as a dense one; None if its indices are not inside of it. torch's own `to_dense` would write outside."""
    indices, values = tensor._indices(), tensor._values()
    dense = torch.zeros(tensor.shape, dtype=tensor.dtype)
    try:
        return dense.index_put_(tuple(indices), values, accumulate=True)
    except (IndexError, RuntimeError):
        return None


def _nothing(walk: Walk) -> str:
    if walk.met_optimizer:
        return "the file holds the state of an optimizer, but no network: save model.state_dict()"
    return "the file was read, but it holds no state_dict: save model.state_dict()"
