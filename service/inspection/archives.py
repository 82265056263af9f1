"""Zip archives, opened with limits."""

import struct
import zipfile
import zlib
from typing import BinaryIO

from service.inspection.budget import ADVICE
from service.inspection.refusal import Refusal

MAX_MEMBERS = 100_000

# The directory of an archive of MAX_MEMBERS members with names of common lengths.
MAX_DIRECTORY_BYTES = 16 * 2**20

END_BYTES = 22
MAX_COMMENT_BYTES = 2**16
ZIP64_LOCATOR_BYTES = 20
ZIP64_END_BYTES = 56


class Archive:
    """A zip archive in a file of `nbytes` bytes. Raises Refusal if its directory is missing or too large.

    `names` are the names of all members.
    """

    def __init__(self, file: BinaryIO, nbytes: int) -> None:
        if _directory_bytes(file, nbytes) > MAX_DIRECTORY_BYTES:
            raise _too_many()
        try:
            self._archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise _cut_off() from error
        members = self._archive.infolist()
        self.names = [member.filename for member in members]
        if len(members) > MAX_MEMBERS or len(set(self.names)) != len(members):
            raise _too_many()
        self._nbytes = nbytes

    def size(self, name: str) -> int:
        """The size of a member in bytes, as the directory of the archive announces it."""
        return self._archive.getinfo(name).file_size

    def validate_sizes(self, names: list[str], limit: int) -> None:
        """Raises Refusal if members have more than `limit` bytes together. Members can share their bytes."""
        if sum(map(self.size, names)) > limit:
            raise Refusal("too-demanding", f"the members of the archive are larger than the archive; {ADVICE}")

    def read(self, name: str, *, stored: bool = True) -> bytes:
        """The content of a member. Raises Refusal if it is damaged, or if it is compressed although it should be `stored`."""
        if stored and self._archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise Refusal(
                "not-a-checkpoint", f"the members of the archive are compressed, which torch.save never does; {ADVICE}"
            )
        try:
            with self._archive.open(name) as member:
                size = self.size(name)
                content = member.read(size)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
            raise Refusal(
                "truncated-file", f"the member {name[:100]!r} of the archive is damaged; upload the file again"
            ) from error
        if len(content) < size:
            raise Refusal("truncated-file", f"the member {name[:100]!r} of the archive is cut off; upload the file again")
        return content


def _directory_bytes(file: BinaryIO, nbytes: int) -> int:
    """The size of the directory at the end of an archive: what zipfile would read."""
    start = max(0, nbytes - END_BYTES - MAX_COMMENT_BYTES - ZIP64_LOCATOR_BYTES - ZIP64_END_BYTES)
    file.seek(start)
    tail = file.read(nbytes - start)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < END_BYTES:
        raise _cut_off()
    (size,) = struct.unpack_from("<I", tail, found + 12)
    # The end of a directory of more than 4 GiB stands before its locator.
    end = found - ZIP64_LOCATOR_BYTES - ZIP64_END_BYTES
    if end >= 0 and tail[found - ZIP64_LOCATOR_BYTES : found].startswith(b"PK\x06\x07"):
        size = max(size if size < 2**32 - 1 else 0, struct.unpack_from("<Q", tail, end + 40)[0])
    return int(size)


def _cut_off() -> Refusal:
    return Refusal("truncated-file", "the directory at the end of the zip archive is missing; upload the file again")


def _too_many() -> Refusal:
    return Refusal("not-a-checkpoint", f"the archive has more than {MAX_MEMBERS} members, or two members of the same name")
