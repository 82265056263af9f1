"""The parts of a resumable upload: the bytes of requests are stored as blobs, and put together when all have arrived."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import problems
from service.settings import Settings
from service.store import blobs, uploads
from service.store.blobs import Blobs, Unreachable
from service.store.database import Database
from service.store.ids import new_id
from service.store.tables import Upload, UploadPart
from service.uploads.intake import Received

# A part is stored when this many bytes have arrived.
PART_BYTES = 4 * 2**20

# A part of less than PART_BYTES is joined with the next part if that is at least half as long. So however short the requests
# are, the number of short parts is at most the binary logarithm of PART_BYTES.
SHORT_PARTS = PART_BYTES.bit_length()


@dataclass(frozen=True)
class Checksum:
    """What the bytes of a request must hash to. `algorithm` is a name that hashlib knows."""

    algorithm: str
    digest: bytes


class Writer:
    """Stores the bytes of one request as parts of an upload. The request has taken the upload over and has the fence `fence`.

    A part is recorded as soon as it is stored, so that what has arrived is kept when the request is cut off. With a checksum,
    all parts are recorded together at the end, or none. `length` is the length of the file, if it is known. `expiry` returns
    when an upload expires that is used now, by the clock of the database.
    """

    def __init__(
        self,
        database: Database,
        store: Blobs,
        upload: Upload,
        fence: int,
        *,
        length: int | None,
        checksum: Checksum | None,
        expiry: Callable[[Session], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._id = upload.id
        self._fence = fence
        self._length = length
        self._checksum = checksum
        self._expiry = expiry
        self._hash = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None
        self._buffer = bytearray()
        self._stored = upload.offset
        self._tail: list[UploadPart] | None = None
        self._withheld: list[UploadPart] = []
        self._complete = False

    @property
    def end(self) -> int:
        """Where the bytes that have arrived end in the file."""
        return self._stored + len(self._buffer)

    async def add(self, data: bytes) -> None:
        """Takes the next bytes of the file. Stores a part if enough bytes have arrived. Raises Locked."""
        self._buffer += data
        if self._hash:
            self._hash.update(data)
        if len(self._buffer) >= PART_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Stores the bytes that have arrived. Raises Locked if another request has taken the upload over."""
        if self._checksum:
            if self._buffer:
                self._withheld.append(await self._put(self._stored, bytes(self._buffer)))
        elif self._buffer:
            data, replaced = await self._joined()
            part = await self._put(self.end - len(data), data)
            await self._record(replaced, [part])
            self._tail = [*(self._tail or []), part]
        elif not self._complete:
            await self._record([], [])

    async def close(self) -> None:
        """Stores the last bytes of the request. Raises Locked, and ChecksumMismatch."""
        await self.flush()
        if self._checksum and self._hash:
            if not hmac.compare_digest(self._hash.digest(), self._checksum.digest):
                raise problems.ChecksumMismatch(
                    f"the {self._checksum.algorithm} hash of the bytes that arrived is not the one in Upload-Checksum; "
                    "send the bytes again"
                )
            withheld, self._withheld = self._withheld, []
            await self._record([], withheld)

    async def discard(self) -> None:
        """Deletes what has been stored and will not be recorded."""
        await self._delete(self._withheld)
        self._withheld = []

    async def _joined(self) -> tuple[bytes, list[UploadPart]]:
        """The bytes of the next part, and the short parts that they begin with, which it replaces."""
        if self._tail is None:
            self._tail = list(await run_in_threadpool(self._last_parts))
        data, replaced = bytes(self._buffer), []
        while self._tail and self._tail[-1].size < PART_BYTES and self._tail[-1].size <= 2 * len(data):
            part = self._tail.pop()
            try:
                data = await run_in_threadpool(_read, self._store, part) + data
            except FileNotFoundError:
                # Another request has taken the upload over, and has replaced the part.
                raise another_request() from None
            replaced.append(part)
        return data, replaced

    async def _put(self, start: int, data: bytes) -> UploadPart:
        """Stores the bytes of the file from the offset `start` on, with which the buffer ends."""
        part = UploadPart(upload_id=self._id, start=start, size=len(data), blob=new_id())
        await self._store.put_bytes(blobs.upload_part(self._id, part.blob), data)
        self._stored = start + len(data)
        self._buffer.clear()
        return part

    async def _record(self, replaced: Sequence[UploadPart], added: Sequence[UploadPart]) -> None:
        recorded = await run_in_threadpool(self._write, replaced, added)
        await self._delete(replaced if recorded else added)
        if not recorded:
            raise another_request()
        self._complete = self._stored == self._length

    def _write(self, replaced: Sequence[UploadPart], added: Sequence[UploadPart]) -> bool:
        with self._database.write() as session:
            return uploads.record(
                session,
                self._id,
                self._fence,
                replaced=replaced,
                added=added,
                offset=self._stored,
                complete=self._stored == self._length,
                expires_at=self._expiry(session),
            )

    def _last_parts(self) -> Sequence[UploadPart]:
        with self._database.read() as session:
            return uploads.last_parts(session, self._id, SHORT_PARTS)

    async def _delete(self, parts: Sequence[UploadPart]) -> None:
        """Deletes the blobs of parts that no row names. A blob that stays behind is deleted with the upload."""
        with suppress(Unreachable):
            for part in parts:
                await self._store.delete(blobs.upload_part(self._id, part.blob))


def another_request() -> problems.Locked:
    """The problem of a request that another one for the same upload has ended."""
    return problems.Locked("another request goes on with this upload; ask for the offset with HEAD")


@asynccontextmanager
async def assembled(settings: Settings, store: Blobs, upload: Upload, parts: Sequence[UploadPart]) -> AsyncIterator[Received]:
    """A block in which the file of an upload, made of all of its parts, lies in a folder in the staging folder."""
    settings.staging.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.staging) as name:
        folder = Path(name)
        nbytes, sha256 = await run_in_threadpool(_assemble, store, parts, folder / "upload")
        yield Received(folder / "upload", folder, upload.filename, nbytes, sha256)


def _assemble(store: Blobs, parts: Sequence[UploadPart], path: Path) -> tuple[int, str]:
    """Writes parts to a file, one after the other. Returns the length of the file and its SHA-256 hash."""
    hash, nbytes = hashlib.sha256(), 0
    with path.open("wb") as file:
        for part in parts:
            assert part.start == nbytes, "the parts have a gap or overlap"
            for piece in store.read(blobs.upload_part(part.upload_id, part.blob), 0, part.size):
                hash.update(piece)
                nbytes += file.write(piece)
    return nbytes, hash.hexdigest()


def _read(store: Blobs, part: UploadPart) -> bytes:
    return b"".join(store.read(blobs.upload_part(part.upload_id, part.blob), 0, part.size))
