"""Two copies of a network in one state_dict, averaged and raw, told apart by the names of their tensors."""

import re
from collections import Counter
from dataclasses import replace

from nern.layers import StateDict
from nern.prefixes import WRAPPER
from nern.state_dicts.candidates import AVERAGED, Candidate
from nern.state_dicts.text import and_others

# So much of a copy must have a tensor of the same name and shape in the other.
COPIED_SHARE = 0.6

# mmcv keeps the raw weights in buffers of these names, and the averages in the module, when it saves.
MMCV = "ema_"


def told_apart(candidate: Candidate) -> list[Candidate]:
    """The candidate as it is, or the averaged copy in it, whole, and the raw one.

    Averages are found under prefixes such as `teacher.` (of a student of the same shapes), `ema_model.` (ema-pytorch),
    `model_ema.` (latent-diffusion, where names have lost their dots) and `ema_` (mmcv).
    """
    names = candidate.state_dict
    for first in dict.fromkeys(name.partition(".")[0] for name in names if "." in name):
        if (first == "teacher" or AVERAGED.search(first)) and (pairs := _pairs(names, f"{first}.")):
            return _averages_under(candidate, first, *pairs)
    if any(name.startswith(MMCV) for name in names) and (pairs := _pairs(names, MMCV)):
        return _swapped(candidate, pairs[1])
    return [candidate]


def _averages_under(candidate: Candidate, first: str, base: str, pairs: dict[str, str]) -> list[Candidate]:
    """`pairs` maps the names of averages, which begin with `first` and a dot, to raw names, which begin with `base`."""
    tensors, prefix = candidate.state_dict, f"{first}."
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    raw = replace(candidate, path=(*candidate.path, base.rstrip(".") or "raw"), state_dict=others, averaged=False)
    under = [name for name in others if name.startswith(base)]
    source = f"names that begin with {base!r}" if base else "the other names"
    notes = [f"averaged weights are under names that begin with {prefix!r}, and raw ones under {source}"]
    if all(copy == f"{prefix}{name.removeprefix(base)}" for copy, name in pairs.items()):
        # Base and copy have the same names, so those of the copy are names that the network has somewhere.
        own = {name: f"{prefix}{name.removeprefix(base)}" for name in under}
        copies = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        beside = {name: tensor for name, tensor in others.items() if name not in own}
        state_dict = {own[name]: others[name] for name in under} | copies | beside
        missing = [name for name in under if own[name] not in copies]
    else:
        state_dict = others | {name: tensors[copy] for copy, name in pairs.items()}
        missing = sorted(set(under) - set(pairs.values()), key=under.index)
        notes.append("the averages have the names of the raw ones here")
    if missing:
        notes.append(f"there is no average of {missing[0]!r}{and_others(len(missing) - 1)}: taken from the raw weights")
    averaged = replace(candidate, path=(*candidate.path, first), state_dict=state_dict, averaged=True)
    averaged.notes = [*candidate.notes, *notes]
    return [averaged, raw]


def _swapped(candidate: Candidate, pairs: dict[str, str]) -> list[Candidate]:
    tensors = candidate.state_dict
    module = {name: tensor for name, tensor in tensors.items() if not name.startswith(MMCV)}
    note = f"the buffers that begin with {MMCV!r} hold the raw weights, as mmcv saves them"
    averaged = replace(candidate, state_dict=module, averaged=True, notes=[*candidate.notes, note])
    raw = module | {name: tensors[copy] for copy, name in pairs.items()}
    return [averaged, replace(candidate, path=(*candidate.path, "raw"), state_dict=raw, averaged=False)]


def _pairs(tensors: StateDict, prefix: str) -> tuple[str, dict[str, str]] | None:
    """The prefix of the raw names, and the raw name of each tensor whose name begins with `prefix`; None if they are no copy.

    A copy's name may have lost its dots, or have underscores for them.
    """
    copies = [name for name in tensors if name.startswith(prefix)]
    others = [name for name in tensors if not name.startswith(prefix)]
    least = max(2, COPIED_SHARE * sum(tensors[name].ndim > 0 for name in copies))
    counts = Counter(name[: dot.end()] for name in others for dot in list(re.finditer(r"\.", name))[:2])
    for base in ["", *(base for base, count in counts.items() if count >= least)]:
        raw = {_plain(name.removeprefix(base)): name for name in others if name.startswith(base)}
        pairs = {}
        for copy in copies:
            bare = copy.removeprefix(prefix)
            name = raw.get(_plain(bare)) or raw.get(_plain(WRAPPER.sub("", bare)))
            if name is not None and tensors[name].shape == tensors[copy].shape:
                pairs[copy] = name
        if sum(tensors[copy].ndim > 0 for copy in pairs) >= least:
            return base, pairs
    return None


def _plain(name: str) -> str:
    return name.replace(".", "").replace("_", "")
