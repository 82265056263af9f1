"""Resumable uploads: a file that arrives in any number of requests, at any replica of the service.

This module knows no HTTP. `service/api/uploads.py` is its face in the protocol tus.

The row of an upload is the truth: bytes up to its offset are stored in the blob store, whatever happens to the process that
received them. When all bytes have arrived, the file is taken in like that of any upload. The row says then what it has become.
"""

import asyncio
import copy
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from threading import Event
from typing import Any, Literal, TypeVar

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import problems
from service.access.limits import check_bytes
from service.problems import Problem
from service.settings import Settings
from service.store import blobs, uploads
from service.store.blobs import Blobs, Unreachable
from service.store.database import Away, Database, now
from service.store.ids import new_id
from service.store.tables import Json, Upload
from service.uploads.arriving import Arriving
from service.uploads.intake import Intake, Normalisation, Received
from service.uploads.parts import Checksum, Writer, another_request, assembled

log = logging.getLogger(__name__)

Kind = Literal["checkpoint", "dataset"]

Value = TypeVar("Value")

# What has arrived is stored after a pause of this length, or when this time has passed, also if it is less than a part.
PAUSE_SECONDS = 5

# How long a request waits for the end of another one for the same upload. After that, the other one can store nothing any more.
END_SECONDS = 10

# The rows of an upload stay for this time after it has expired. Until then, a late request may still store a part.
GRACE = timedelta(minutes=10)

# The most uploads that one sweep removes.
REMOVED_UPLOADS = 100


@dataclass(frozen=True)
class NewUpload:
    """What a client wants to upload. `length` in bytes may become known later.

    `parameters` are those of `Uploads._take_in`. `header` is kept for the client and means nothing here.
    """

    kind: Kind
    filename: str
    length: int | None
    parameters: Json = field(default_factory=dict)
    header: str = ""


class Uploads:
    """All resumable uploads. Methods raise Problem. Any number of processes may call them for one upload at the same time."""

    def __init__(self, settings: Settings, database: Database, store: Blobs, intake: Intake, stopping: Event) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._intake = intake
        self._stopping = stopping
        self._appending: dict[str, Arriving] = {}

    def of(self, owner: str) -> "Uploads":
        """The uploads of an owner."""
        bound = copy.copy(self)
        bound._database = self._database.of(owner)
        return bound

    async def create(self, new: NewUpload) -> Upload:
        """A new upload without bytes."""
        self._validate_length(new.length)

        def add(session: Session) -> Upload:
            check_bytes(session, self._settings, new.length or 0)
            upload = Upload(
                id=new_id(),
                kind=new.kind,
                filename=new.filename,
                parameters=new.parameters,
                header=new.header,
                length=new.length,
                offset=0,
                state="receiving",
                fence=0,
                leased_until=None,
                attempts=0,
                resource=None,
                problem=None,
                created_at=now(session),
                expires_at=self._expiry(session),
            )
            uploads.add(session, upload)
            return upload

        return await self._write(add)

    async def find(self, id: str) -> Upload:
        """The upload of this id. Raises NotFound, and Gone if it has expired or was abandoned."""
        upload, has_expired = await self._read(lambda session: _get(session, id))
        if upload is None:
            raise problems.NotFound(f"there is no upload {id}")
        if upload.state == "abandoned":
            raise problems.Gone(f"upload {id} was ended by a client; create a new upload")
        if has_expired:
            raise problems.Gone(f"upload {id} has expired; create a new upload")
        return upload

    async def append(
        self,
        id: str,
        offset: int,
        content: AsyncIterator[bytes],
        *,
        nbytes: int | None = None,
        length: int | None = None,
        checksum: Checksum | None = None,
    ) -> Upload:
        """Adds bytes to an upload at its offset `offset`, and returns the upload as it is then.

        `content` may end early. `nbytes` is the number of bytes that it announces. `length` is the length of the whole file, if
        the client tells it now. With a checksum, all bytes are added or none. A later call for the same upload ends this one.
        Raises OffsetConflict, Locked, TooLarge, ChecksumMismatch, and what `find` raises.
        """
        async with Arriving(content, pause_seconds=PAUSE_SECONDS) as arriving:
            await self.find(id)
            await self._end_other(id)
            return await self._append(id, offset, arriving, nbytes, length, checksum)

    async def settle(self, id: str) -> Upload:
        """The upload at rest, for a client that wants to go on.

        If a request for the upload is under way in this process, it is ended, because its connection is probably dead. What it
        has received is stored. Does what `finish` does besides.
        """
        await self.find(id)
        await self._end_other(id)
        return await self.finish(id)

    async def finish(self, id: str) -> Upload:
        """Takes in the file of an upload if all of its bytes have arrived, and returns the upload as it is then.

        If another process is at it, waits until that has ended. Raises Unavailable if the file can't be taken in now; it is not
        lost then. Does not raise for a file that is refused: the problem is in the row.
        """
        while (upload := await self.find(id)).state == "received":
            if (fence := await self._write(lambda session: self._lease(session, id))) is not None:
                await self._conclude(upload, fence)
            elif self._stopping.is_set():
                raise problems.Unavailable("this server is stopping; try again", headers={"Retry-After": "1"})
            else:
                await asyncio.sleep(self._settings.poll_seconds)
        return upload

    async def abandon(self, id: str) -> None:
        """Ends an upload and deletes its bytes. What it has become stays. Raises Locked, and what `find` raises."""
        await self.find(id)
        if not await self._write(lambda session: uploads.abandon(session, id, now=now(session))):
            raise problems.Locked("the file of this upload is being inspected; wait for the outcome")
        await self._store.delete_folder(blobs.upload_folder(id))

    async def sweep(self) -> None:
        """Takes in files whose process has gone silent, and removes uploads that have expired. May run in many processes."""
        for id in await self._read(_expired):
            await self._store.delete_folder(blobs.upload_folder(id))
            await self._write(partial(uploads.remove, id=id))
        most = self._settings.max_attempts
        for id in await self._read(lambda session: uploads.waiting(session, now=now(session), max_attempts=most)):
            # The client may have ended the upload in the meantime.
            with suppress(problems.NotFound, problems.Gone):
                await self.finish(id)

    async def _append(
        self, id: str, offset: int, arriving: Arriving, nbytes: int | None, length: int | None, checksum: Checksum | None
    ) -> Upload:
        upload = await self.find(id)
        if upload.offset != offset:
            raise conflict(upload, offset)
        if length is not None and upload.length is None:
            self._validate_length(length)
        elif length is not None and length != upload.length:
            raise problems.BadRequest(f"the file of this upload has {upload.length} bytes, and Upload-Length says {length}")
        length = upload.length if length is None else length
        most = self._settings.max_upload_bytes if length is None else length
        if offset + (nbytes or 0) > most:
            raise _too_many(most)
        if upload.state != "receiving":
            return upload
        taking = partial(uploads.take_over, id=id, offset=offset, length=length)
        fence = await self._write(lambda session: taking(session, now=now(session)))
        if fence is None:
            raise conflict(await self.find(id), offset)
        writer = Writer(self._database, self._store, upload, fence, length=length, checksum=checksum, expiry=self._expiry)
        self._appending[id] = arriving
        try:
            await self._receive(writer, arriving, most)
        finally:
            await writer.discard()
            if self._appending.get(id) is arriving:
                del self._appending[id]
        return await self.find(id)

    async def _end_other(self, id: str) -> None:
        """Ends the request for an upload that is under way in this process, if there is one, and waits for its end."""
        if other := self._appending.get(id):
            other.stop()
            with suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await other.over.wait()

    async def _receive(self, writer: Writer, arriving: Arriving, most: int) -> None:
        clock = asyncio.get_running_loop().time
        flushed_at = clock()
        try:
            async for piece in arriving:
                if writer.end + len(piece) > most:
                    raise _too_many(most)
                await writer.add(piece)
                if not piece or clock() - flushed_at > PAUSE_SECONDS:
                    await writer.flush()
                    flushed_at = clock()
                if self._stopping.is_set():
                    raise problems.Unavailable("this server is stopping; go on with the upload", headers={"Retry-After": "1"})
        except problems.Unavailable:
            await writer.flush()
            raise
        await writer.close()
        if arriving.stopped:
            raise another_request()

    async def _conclude(self, upload: Upload, fence: int) -> None:
        """Takes in the file of a received upload, and writes what has become of it. The caller has leased the upload."""
        resource, problem = None, None
        try:
            async with self._kept_leased(upload.id, fence):
                parts = await self._read(lambda session: uploads.parts(session, upload.id))
                async with assembled(self._settings, self._store, upload, parts) as file:
                    resource = await self._take_in(upload, file)
        except Problem as refusal:
            if refusal.status >= 500:
                await self._release(upload.id, fence)
                raise
            problem = {"slug": refusal.slug, "detail": refusal.detail, "extra": refusal.extra}
        except BaseException:
            await self._release(upload.id, fence)
            raise
        state: Literal["done", "refused"] = "done" if resource else "refused"
        became: dict[str, Any] = {"resource": resource, "problem": problem}

        def conclude(session: Session) -> bool:
            return uploads.conclude(session, upload.id, fence, state, **became, expires_at=self._expiry(session))

        if await self._write(conclude):
            # Parts that stay behind are deleted when the upload expires.
            with suppress(Unreachable):
                await self._store.delete_folder(blobs.upload_folder(upload.id))

    async def _take_in(self, upload: Upload, file: Received) -> str:
        """Makes a checkpoint or a dataset of a file. Returns its path. The parameters are those of the intake."""
        given, intake = upload.parameters, self._intake.of(upload.owner)
        if upload.kind == "checkpoint":
            checkpoint, _ = await intake.checkpoint(file, given.get("key", ""))
            return f"/v1/checkpoints/{checkpoint.id}"
        normalisation = Normalisation(tuple(given["mean"]), tuple(given["std"])) if given.get("mean") else None
        size = (given["size"][0], given["size"][1]) if given.get("size") else None
        dataset, _ = await intake.dataset(file, given.get("name", ""), normalisation, size)
        return f"/v1/datasets/{dataset.id}"

    @asynccontextmanager
    async def _kept_leased(self, id: str, fence: int) -> AsyncIterator[None]:
        """A block in which the lease of an upload is extended again and again."""

        async def extend() -> None:
            while True:
                await asyncio.sleep(self._settings.lease_seconds / 3)
                with suppress(Away):  # the database may answer the next time
                    await self._write(lambda session: uploads.extend(session, id, fence, until=self._leased_until(session)))

        extending = asyncio.create_task(extend())
        try:
            yield
        finally:
            extending.cancel()
            await asyncio.gather(extending, return_exceptions=True)

    async def _release(self, id: str, fence: int) -> None:
        """Ends a lease, so that the next request or sweep need not wait for its end."""
        try:
            await self._write(lambda session: uploads.extend(session, id, fence, until=None))
        except Away:
            log.exception("the lease of upload %s could not be ended; it ends by itself", id)

    async def _read(self, query: Callable[[Session], Value]) -> Value:
        def run() -> Value:
            with self._database.read() as session:
                return query(session)

        return await run_in_threadpool(run)

    async def _write(self, query: Callable[[Session], Value]) -> Value:
        def run() -> Value:
            with self._database.write() as session:
                return query(session)

        return await run_in_threadpool(run)

    def _validate_length(self, length: int | None) -> None:
        if length == 0:
            raise problems.EmptyFile("the file has no bytes; send a checkpoint or a dataset")
        if length is not None and length > self._settings.max_upload_bytes:
            raise _too_many(self._settings.max_upload_bytes)

    def _lease(self, session: Session, id: str) -> int | None:
        return uploads.lease(session, id, now=now(session), until=self._leased_until(session))

    def _expiry(self, session: Session) -> datetime:
        return now(session) + timedelta(hours=self._settings.upload_expiry_hours)

    def _leased_until(self, session: Session) -> datetime:
        return now(session) + timedelta(seconds=self._settings.lease_seconds)


def _get(session: Session, id: str) -> tuple[Upload | None, bool]:
    """The upload of this id, and whether it has expired."""
    upload = uploads.get(session, id)
    return upload, upload is not None and upload.expires_at <= now(session)


def _expired(session: Session) -> Sequence[str]:
    return uploads.expired(session, before=now(session) - GRACE, limit=REMOVED_UPLOADS)


async def sweep_forever(kept: Uploads, settings: Settings) -> None:
    """Sweeps every `settings.sweep_seconds` until the task is cancelled. Goes on after a sweep that failed."""
    while True:
        try:
            await kept.sweep()
        except Exception:  # for example, the database does not answer; the service must go on until it does
            log.exception("the sweep of uploads failed; the next one is in %g s", settings.sweep_seconds)
        await asyncio.sleep(settings.sweep_seconds)


def conflict(upload: Upload, offset: int) -> problems.OffsetConflict:
    """The problem of a request that goes on at the wrong offset."""
    return problems.OffsetConflict(
        f"the service has {upload.offset} bytes of this upload, so it can't go on at byte {offset}; go on at {upload.offset}",
        headers={"Upload-Offset": str(upload.offset)},
    )


def outcome(upload: Upload) -> Upload:
    """The upload. Raises the problem for which its file was refused."""
    if upload.problem:
        raise problems.KINDS[upload.problem["slug"]](upload.problem["detail"], **upload.problem["extra"])
    return upload


def _too_many(most: int) -> problems.TooLarge:
    return problems.TooLarge(
        f"the file is larger than {most} bytes, the size that was announced or the largest that is accepted", limit=most
    )
