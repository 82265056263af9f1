"""Averaged weights, from where each library keeps them.

Libraries keep averages under a key of their own (BasicSR, timm), in the place of the raw weights (mmengine, Lightning), under
names beside the raw ones (`nern.state_dicts.copies`), or as a list of parameters (torch-ema). Some average only parameters. The
statistics of batch norms are then taken from the raw weights.
"""

import re
from dataclasses import replace

from nern.layers import StateDict
from nern.prefixes import FOREIGN, WRAPPER
from nern.state_dicts.candidates import Candidate
from nern.state_dicts.copies import told_apart
from nern.state_dicts.text import and_others

# What modules keep beside their parameters. A list of averaged parameters has no entries for these.
STATISTICS = re.compile(r"(?:running_mean|running_var|num_batches_tracked)$")

# Where libraries save the raw weights, if they save the averages as the state_dict.
SWAPPED = {"ema_state_dict": "mmengine", "current_model_state": "Lightning"}


def with_averages(found: list[Candidate]) -> list[Candidate]:
    """The candidates of a file, in which averages are told from raw weights, each is whole, and none holds two copies."""
    found = [part for candidate in found for part in _parts(candidate)]
    for candidate in found:
        _tell_swapped(candidate, found)
        _tell_teacher(candidate, found)
    return [_completed(candidate, found) if candidate.averaged else candidate for candidate in found]


def _parts(candidate: Candidate) -> list[Candidate]:
    names = candidate.state_dict
    if "n_averaged" in names and all(name.startswith("module.") for name in names if name != "n_averaged"):
        note = f"the weights are averages of {int(names['n_averaged'].flatten()[0])} states, made by torch's AveragedModel"
        return [replace(candidate, averaged=True, notes=[*candidate.notes, note])]
    return told_apart(candidate)


def _tell_swapped(candidate: Candidate, found: list[Candidate]) -> None:
    """mmengine and Lightning save the averages as `state_dict`, and the raw weights under a key of their own."""
    *parents, last = candidate.path or ("",)
    if last not in SWAPPED or (last == "ema_state_dict" and "steps" not in candidate.state_dict):
        return
    if (other := _at(found, *parents, "state_dict")) is not None:
        candidate.averaged, other.averaged = False, True
        note = f"{other.key!r} holds averaged weights, and {candidate.key!r} raw ones, as {SWAPPED[last]} saves them"
        other.notes.append(note)


def _tell_teacher(candidate: Candidate, found: list[Candidate]) -> None:
    """A teacher of the shapes of its student is an average of it. Another teacher is not the network that was trained."""
    *parents, last = candidate.path or ("",)
    if last == "teacher" and not candidate.averaged and (student := _at(found, *parents, "student")) is not None:
        candidate.averaged = _shapes(candidate.state_dict) == _shapes(student.state_dict)
        candidate.secondary = not candidate.averaged


def _at(found: list[Candidate], *path: str) -> Candidate | None:
    return next((candidate for candidate in found if candidate.path == path), None)


def _shapes(state_dict: StateDict) -> dict[str, tuple[int, ...]]:
    return {bare: tuple(tensor.shape) for bare, tensor in _bare(state_dict).items()}


def _bare(state_dict: StateDict) -> StateDict:
    return {WRAPPER.sub("", name): tensor for name, tensor in state_dict.items()}


def _completed(candidate: Candidate, found: list[Candidate]) -> Candidate:
    """Averages, with what they lack of the raw weights of the same network."""
    for raw in found:
        if raw.averaged or raw.secondary != candidate.secondary:
            continue
        if all(name.isdecimal() for name in candidate.state_dict) and (named := _named(candidate.state_dict, raw.state_dict)):
            note = f"the averages are a list of parameters; their names, and all other tensors, are those of {raw.key!r}"
            return replace(candidate, state_dict=named, notes=[note], left_out=raw.left_out)
        shapes, raw_shapes = _shapes(candidate.state_dict), _shapes(raw.state_dict)
        missing = [name for name in raw_shapes if name not in shapes and not FOREIGN.match(name)]
        shared = shapes.keys() & raw_shapes.keys()
        if missing and len(shared) >= len(raw_shapes) / 2 and all(shapes[name] == raw_shapes[name] for name in shared):
            note = f"there is no average of {missing[0]!r}{and_others(len(missing) - 1)}: taken from {raw.key!r}"
            return replace(
                candidate, state_dict=_filled(candidate.state_dict, raw.state_dict, missing), notes=[*candidate.notes, note]
            )
    return candidate


def _filled(averages: StateDict, raw: StateDict, missing: list[str]) -> StateDict:
    """Averages with the missing raw tensors, in the order of the raw ones. A wrapper's prefix of all averages is theirs too."""
    own = {WRAPPER.sub("", name): name for name in averages}
    prefixes = {name.removesuffix(bare) for bare, name in own.items()}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    names = own | {name: prefix + name for name in missing}
    ordered = {names[bare]: averages.get(names[bare], tensor) for bare, tensor in _bare(raw).items() if bare in names}
    return ordered | {name: tensor for name, tensor in averages.items() if name not in ordered}


def _named(listed: StateDict, raw: StateDict) -> StateDict:
    """Averaged parameters under the names of the raw ones, with the other raw tensors; empty if their shapes differ."""
    parameters = [name for name in raw if not STATISTICS.search(name)]
    values = list(listed.values())
    if [raw[name].shape for name in parameters] != [value.shape for value in values]:
        return {}
    return raw | dict(zip(parameters, values, strict=True))
