"""Checkpoints in several files: shards in the safetensors format and their index, in a tar archive.

Libraries name the shards of a checkpoint model-00001-of-00003.safetensors and so on. The index, model.safetensors.index.json,
maps the name of each tensor to the name of its shard.
"""

import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from torch import Tensor

from nern import tensorfile
from nern.layers import StateDict
from service.inspection import safetensors_files
from service.inspection.refusal import Refusal
from service.inspection.tree import Content

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.\w+)")
SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"

# The magic number of a tar archive, and where it stands.
MAGIC, MAGIC_OFFSET = b"ustar", 257

MAX_MEMBERS = 10_000

# At most this many names of shards or tensors are in a message.
NAMED = 5

HOW_TO_SEND = (
    "send all shards and the index together: several parts `file` in one form, or one tar archive of them "
    "(tar cf model.tar *.safetensors *.index.json)"
)


def lone_part(filename: str) -> str | None:
    """Why a file of this name can't be a checkpoint alone, or None: it is one of several shards, or their index."""
    if filename.endswith(".index.json"):
        return f"{filename!r} is the index of a checkpoint in several files and holds no weights; {HOW_TO_SEND}"
    if not (found := SHARD.fullmatch(filename)) or int(found["total"]) < 2:
        return None
    part = f"{filename!r} is one of {int(found['total'])} shards of a checkpoint"
    if found["suffix"] == SUFFIX:
        return f"{part}; {HOW_TO_SEND}"
    return f"{part}, and only shards in the safetensors format can be put together; save the model as safetensors"


def archive_name(filenames: Iterable[str]) -> str:
    """A name for an archive of files with these names."""
    stems = {found["stem"] for name in filenames if (found := SHARD.fullmatch(name))}
    return f"{stems.pop() if len(stems) == 1 else 'shards'}.tar"


def sniff(start: bytes) -> bool:
    """Whether a file that begins with the bytes `start` (512 or more) is a tar archive."""
    return start[MAGIC_OFFSET : MAGIC_OFFSET + len(MAGIC)] == MAGIC


def read(file: BinaryIO, nbytes: int) -> Content:
    """The tensors in a tar archive of shards, and notes on files that were left out. Raises Refusal.

    The tensors are in the order of the index. Without an index, all shards must be there by their names.
    """
    members = _members(file, nbytes)
    shards = {name: member for name, member in members.items() if name.endswith(SUFFIX)}
    indexes = [name for name in members if name.endswith(INDEX_SUFFIX)]
    if not shards:
        held = _listed(members) or "no files"
        raise Refusal("bad-shards", f"the archive holds {held} and no .safetensors file; {HOW_TO_SEND}")
    if len(indexes) > 1:
        raise Refusal("bad-shards", f"the archive holds more than one index: {_listed(indexes)}; send one checkpoint")
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
    notes = [f"{_listed(left_out)}: neither a shard nor the index, left out"] if left_out else []
    return Content(tensors, notes)


@dataclass
class _Window:
    """A part of a file, read like a file of its own."""

    file: BinaryIO
    start: int
    size: int
    position: int = 0

    def seek(self, position: int) -> int:
        self.position = position
        return position

    def read(self, nbytes: int) -> bytes:
        self.file.seek(self.start + self.position)
        data = self.file.read(max(0, min(nbytes, self.size - self.position)))
        self.position += len(data)
        return data


def _members(file: BinaryIO, nbytes: int) -> dict[str, _Window]:
    """The files in an archive by the last part of their names, in the order of these. Hidden files are left out."""
    members: dict[str, _Window] = {}
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for count, member in enumerate(archive):
                if count == MAX_MEMBERS:
                    raise Refusal("bad-shards", f"the archive has more than {MAX_MEMBERS} members")
                name = member.name.rpartition("/")[2]
                if member.isdir() or name.startswith("."):
                    continue
                if not member.isreg() or member.issparse():
                    raise Refusal("bad-shards", f"{name!r} in the archive is no ordinary file; put in the files themselves")
                if name in members:
                    raise Refusal("bad-shards", f"the archive holds two files of the name {name!r}")
                if member.offset_data + member.size > nbytes:
                    raise Refusal("truncated-file", f"the archive ends inside {name!r}; upload it again")
                members[name] = _Window(file, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise Refusal("truncated-file", "the archive is malformed or ends too early; make it again with tar cf") from error
    return dict(sorted(members.items()))


def _index(member: _Window, name: str) -> dict[str, str]:
    """The shard of each tensor, by an index."""
    try:
        if member.size > tensorfile.MAX_HEADER_BYTES:
            raise ValueError
        places = json.loads(member.read(member.size))["weight_map"]
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
            raise Refusal("bad-shards", f"{_listed(extra)}: not of the same checkpoint as the other files; send the index too")
        if missing := sorted(named - shards.keys()):
            raise Refusal("bad-shards", f"{_listed(missing)} missing; {HOW_TO_SEND}")
        return
    if missing := sorted(named - shards.keys()):
        raise Refusal("bad-shards", f"the index names {_listed(missing)}, missing here; {HOW_TO_SEND}")
    if extra := sorted(shards.keys() - named):
        raise Refusal("bad-shards", f"the index does not name {_listed(extra)}; send the files of one checkpoint")


def _validate_tensors(places: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raises Refusal unless every tensor of the index is in its shard, and no other."""
    if missing := [name for name, place in places.items() if found.get(name) != place]:
        shard = places[missing[0]]
        raise Refusal("bad-shards", f"tensors that the index names are not in their shard ({shard}): {_listed(missing)}")
    if extra := [name for name in found if name not in places]:
        raise Refusal("bad-shards", f"tensors that the index does not name are in {found[extra[0]]}: {_listed(extra)}")


def _tensors(member: _Window, name: str) -> Mapping[str, Tensor]:
    if not safetensors_files.sniff(member.read(9)):
        raise Refusal("bad-shards", f"{name} is not in the safetensors format")
    try:
        return safetensors_files.tensors(member, member.size)[0]
    except Refusal as refusal:
        raise Refusal(refusal.slug, f"{name}: {refusal.detail}") from refusal


def _listed(names: Iterable[str]) -> str:
    """Names as a list in a sentence, at most NAMED of them."""
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
