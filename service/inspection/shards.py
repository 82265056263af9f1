"""Reads checkpoints in several safetensors files: shards, and the index that maps the name of each tensor to a shard."""

import json
from collections.abc import Mapping

from torch import Tensor

from nern import tensorfile
from nern.layers import StateDict
from service.inspection import safetensors_files
from service.inspection.companions import HOW_TO_SEND, INDEX_SUFFIX, SHARD, SUFFIX
from service.inspection.refusal import Refusal
from service.inspection.tars import MAX_MEMBERS, Window, listed
from service.inspection.tree import Content


def read(members: Mapping[str, Window]) -> Content:
    """The tensors in the members of a tar archive of shards, and notes on files that were left out. Raises Refusal.

    The tensors are in the order of the index. Without an index, all shards must be there by their names.
    """
    shards = {name: member for name, member in members.items() if name.endswith(SUFFIX)}
    indexes = [name for name in members if name.endswith(INDEX_SUFFIX)]
    if not shards:
        held = listed(members) or "no files"
        raise Refusal("bad-shards", f"the archive holds {held} and no .safetensors file; {HOW_TO_SEND}")
    if len(indexes) > 1:
        raise Refusal("bad-shards", f"the archive holds more than one index: {listed(indexes)}; send one checkpoint")
    places = _index(members[indexes[0]], indexes[0]) if indexes else None
    _validate_shards(shards, None if places is None else set(places.values()))
    found: dict[str, str] = {}
    tensors: StateDict = {}
    for name, member in shards.items():
        for tensor, value in _tensors(member, name).items():
            if tensor in found:
                raise Refusal("bad-shards", f"the tensor {tensor!r} is in two shards: {found[tensor]} and {name}")
            found[tensor], tensors[tensor] = name, value
    if places is not None:
        _validate_tensors(places, found)
        tensors = {name: tensors[name] for name in places}
    left_out = [name for name in members if name not in shards and name not in indexes]
    notes = [f"{listed(left_out)}: neither a shard nor the index, left out"] if left_out else []
    return Content(tensors, notes)


def _index(member: Window, name: str) -> dict[str, str]:
    """The shard of each tensor, by an index."""
    try:
        if member.size > tensorfile.MAX_HEADER_BYTES:
            raise ValueError
        places = json.loads(member.read(member.size).decode())["weight_map"]
        if not places or not all(isinstance(place, str) for place in places.values()):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refusal("bad-shards", f"{name} is no index: a JSON object with weight_map, from tensors to shards") from None
    return dict(places)


def _validate_shards(shards: Mapping[str, object], named: set[str] | None) -> None:
    """Raises Refusal unless the shards are those that the index names; without an index, unless none is missing."""
    if named is None:
        found = [match for name in shards if (match := SHARD.fullmatch(name))]
        named = {
            f"{match['stem']}-{number:05}-of-{match['total']}{SUFFIX}"
            for match in found[:1]
            for number in range(1, min(int(match["total"]), MAX_MEMBERS) + 1)
        }
        if not found:
            named = set(shards) if len(shards) == 1 else set()
        if extra := sorted(shards.keys() - named):
            raise Refusal("bad-shards", f"{listed(extra)}: not of the same checkpoint as the other files; send the index too")
        if missing := sorted(named - shards.keys()):
            raise Refusal("bad-shards", f"{listed(missing)} missing; {HOW_TO_SEND}")
        return
    if missing := sorted(named - shards.keys()):
        raise Refusal("bad-shards", f"the index names {listed(missing)}, missing here; {HOW_TO_SEND}")
    if extra := sorted(shards.keys() - named):
        raise Refusal("bad-shards", f"the index does not name {listed(extra)}; send the files of one checkpoint")


def _validate_tensors(places: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raises Refusal unless every tensor of the index is in its shard, and no other."""
    if missing := [name for name, place in places.items() if found.get(name) != place]:
        shard = places[missing[0]]
        raise Refusal("bad-shards", f"tensors that the index names are not in their shard ({shard}): {listed(missing)}")
    if extra := [name for name in found if name not in places]:
        raise Refusal("bad-shards", f"tensors that the index does not name are in {found[extra[0]]}: {listed(extra)}")


def _tensors(member: Window, name: str) -> Mapping[str, Tensor]:
    if not safetensors_files.sniff(member.read(9)):
        raise Refusal("bad-shards", f"{name} is not in the safetensors format")
    try:
        return safetensors_files.tensors(member, member.size)[0]
    except Refusal as refusal:
        raise Refusal(refusal.slug, f"{name}: {refusal.detail}") from refusal
