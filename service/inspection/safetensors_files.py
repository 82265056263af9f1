"""Reads checkpoints in the safetensors format, with the limits of the reference implementation (the library safetensors)."""

from typing import Protocol

from nern import tensorfile
from nern.errors import BadArtefact
from nern.layers import StateDict
from nern.tensorfile import Entry
from service.inspection.refusal import Refusal
from service.inspection.tree import Content


def sniff(start: bytes) -> bool:
    """Whether a file that begins with the bytes `start` (9 or more) may be a safetensors file."""
    return len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= tensorfile.MAX_HEADER_BYTES


class Readable(Protocol):
    """A file that is open for reading, or a part of one."""

    def seek(self, position: int, /) -> int: ...

    def read(self, nbytes: int, /) -> bytes: ...


def read(file: Readable, nbytes: int) -> Content:
    """The tensors in a safetensors file of `nbytes` bytes, by name, aliases included. Raises Refusal."""
    return Content(tensorfile.with_aliases(*tensors(file, nbytes)))


def tensors(file: Readable, nbytes: int) -> tuple[StateDict, dict[str, str]]:
    """The tensors in a safetensors file of `nbytes` bytes, by name, and the metadata of the file. Raises Refusal."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if 8 + length > nbytes:
        raise Refusal("truncated-file", "the file ends inside its header; upload the file again")
    try:
        entries, metadata = tensorfile.parse_header(file.read(length))
    except BadArtefact as error:
        raise Refusal("not-a-checkpoint", f"{error}; write the file with the safetensors library") from error
    _validate_layout(list(entries.values()), data=8 + length, nbytes=nbytes)
    found = {}
    for name, entry in entries.items():
        file.seek(entry.start)
        found[name] = tensorfile.from_bytes(file.read(entry.stop - entry.start), entry.dtype, entry.shape)
    return found, metadata


def _validate_layout(entries: list[Entry], *, data: int, nbytes: int) -> None:
    end = data
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.stop)):
        if entry.start != end:
            raise Refusal("not-a-checkpoint", f"tensor {entry.name!r} overlaps another tensor, or there is a gap before it")
        end = entry.stop
    if end > nbytes:
        raise Refusal(
            "truncated-file", f"the file has {nbytes} bytes, but its tensors end at byte {end}; upload the file again"
        )
    if end < nbytes:
        raise Refusal("not-a-checkpoint", f"{nbytes - end} bytes follow the last tensor; write the file again")
