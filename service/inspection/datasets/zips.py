"""Opens zip archives of strangers. Nothing is ever extracted to a folder."""

import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from service.inspection.datasets.found import bad, shown

# Larger datasets of single files exist, but the list of their members alone takes too long to read.
MAX_MEMBERS = 200_000
MAX_DIRECTORY_BYTES = 64 * 2**20

MEMBER = b"PK\x01\x02"
END = b"PK\x05\x06"
END_64, LOCATOR_64 = b"PK\x06\x06", b"PK\x06\x07"
# What zipfile raises for damaged archives, and for compression that it does not know.
UNREADABLE = (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, zlib.error, lzma.LZMAError, struct.error)

END_BYTES, END_64_BYTES, MAX_COMMENT_BYTES = 22, 76, 2**16


@contextmanager
def opened(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """The archive in a file, whose members have been checked.

    Raises Refusal, also for what the block raises if a member can't be read.
    """
    _limit_members(file)
    try:
        with zipfile.ZipFile(file) as archive:
            _validate(archive.infolist())
            yield archive
    except UNREADABLE as error:
        raise bad("the zip archive can't be read, or it was cut off; write it again and upload it again") from error


def _validate(members: list[zipfile.ZipInfo]) -> None:
    names = set()
    for member in members:
        if member.flag_bits & 1:
            raise bad(f"`{shown(member.filename)}` is encrypted; write the archive without a password")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise bad(
                f"`{shown(member.filename)}` is a symbolic link; write the archive with the files themselves (zip without -y)"
            )
        if member.filename in names:
            raise bad(f"the archive holds `{shown(member.filename)}` twice; write it again")
        names.add(member.filename)
        path = member.filename.replace("\\", "/")
        if path.startswith("/") or ".." in path.split("/"):
            raise bad(
                f"the path `{shown(member.filename)}` leads out of the archive; write the archive with paths below its top"
            )


def _limit_members(file: BinaryIO) -> None:
    """Raises Refusal for too many members, before the library makes an object for each."""
    nbytes = file.seek(0, 2)
    start = max(0, nbytes - END_BYTES - END_64_BYTES - MAX_COMMENT_BYTES)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(END)
    if at < 0 or at + END_BYTES > len(tail):
        return  # the library says what is wrong
    (directory_bytes,) = struct.unpack_from("<L", tail, at + 12)
    if at >= END_64_BYTES and tail[at - 20 : at - 16] == LOCATOR_64 and tail[at - END_64_BYTES :].startswith(END_64):
        at -= END_64_BYTES
        (directory_bytes,) = struct.unpack_from("<Q", tail, at + 40)
    if directory_bytes <= MAX_DIRECTORY_BYTES:
        file.seek(max(0, start + at - directory_bytes))
        if file.read(directory_bytes).count(MEMBER) <= MAX_MEMBERS:
            return
    raise bad(f"the archive has more than {MAX_MEMBERS} members; send fewer images, or an .npz file with them as one array")
