"""Several files as one: a tar archive, the same for the same files in any order."""

import hashlib
import tarfile
from collections.abc import Sequence
from itertools import pairwise
from typing import BinaryIO

from service import problems
from service.inspection.companions import archive_name
from service.uploads.intake import Received

BUFFER_BYTES = 2**20


class _Hashed:
    """A file that hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.nbytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.nbytes += len(data)
        return self._file.write(data)


def packed(files: Sequence[Received]) -> Received:
    """A tar archive of files in the same folder, which are removed. Raises BadRequest if two files have the same name."""
    ordered = sorted(files, key=lambda file: file.filename)
    for file, other in pairwise(ordered):
        if file.filename == other.filename:
            raise problems.BadRequest(f"the form has two files of the name {file.filename!r}")
    path = files[0].folder / "archive"
    with path.open("wb") as target:
        hashed = _Hashed(target)
        # The header of a member has nothing but its name and size, so that the same files give the same bytes.
        with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=BUFFER_BYTES) as archive:  # type: ignore[call-overload]
            for file in ordered:
                member = tarfile.TarInfo(file.filename)
                member.size = file.nbytes
                with file.path.open("rb") as content:
                    archive.addfile(member, content)
                file.path.unlink()
    name = archive_name(file.filename for file in ordered)
    return Received(path, files[0].folder, name, hashed.nbytes, hashed.sha256.hexdigest())
