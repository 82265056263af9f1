"""The files in a tar archive: a checkpoint in several files."""

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from service.inspection.refusal import Refusal

# The magic number of a tar archive, and where it stands.
MAGIC, MAGIC_OFFSET = b"ustar", 257

MAX_MEMBERS = 10_000

# At most this many names are in a message.
NAMED = 5


def sniff(start: bytes) -> bool:
    """Whether a file that begins with the bytes `start` (512 or more) is a tar archive."""
    return start[MAGIC_OFFSET : MAGIC_OFFSET + len(MAGIC)] == MAGIC


@dataclass
class Window:
    """A part of a file, read like a file of its own."""

    file: BinaryIO
    start: int
    size: int
    position: int = 0

    def seek(self, position: int) -> int:
        """Goes to a position."""
        self.position = position
        return position

    def read(self, nbytes: int) -> bytes:
        """At most so many bytes from the position on."""
        self.file.seek(self.start + self.position)
        data = self.file.read(max(0, min(nbytes, self.size - self.position)))
        self.position += len(data)
        return data


def members(file: BinaryIO, nbytes: int) -> dict[str, Window]:
    """The files in a tar archive of `nbytes` bytes by the last part of their names, in the order of these.

    Hidden files are left out. Raises Refusal.
    """
    found: dict[str, Window] = {}
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
                if name in found:
                    raise Refusal("bad-shards", f"the archive holds two files of the name {name!r}")
                if member.offset_data + member.size > nbytes:
                    raise Refusal("truncated-file", f"the archive ends inside {name!r}; upload it again")
                found[name] = Window(file, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise Refusal("truncated-file", "the archive is malformed or ends too early; make it again with tar cf") from error
    return dict(sorted(found.items()))


def listed(names: Iterable[str]) -> str:
    """Names as a list in a sentence, at most NAMED of them."""
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
