"""Resumable uploads without HTTP, on each kind of database: several replicas, crashes, expiry."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from sqlalchemy.orm import Session

from service import problems
from service.settings import Settings
from service.store import uploads
from service.store.blobs import Blobs
from service.store.database import Away, Database
from service.store.tables import Upload, UploadPart
from service.uploads import parts, resumable
from service.uploads.intake import Intake, Received
from service.uploads.parts import Checksum
from service.uploads.resumable import GRACE, NewUpload, Uploads
from tests.support import rows
from tests.support.calls import files
from tests.support.waiting import DEADLINE_SECONDS

CONTENT = np.random.default_rng(0).bytes(100_000)


class TakenIn(Intake):
    """An intake that makes a checkpoint of every file, and keeps the files."""

    def __init__(self, database: Database) -> None:
        self.files: list[bytes] = []
        self.database = database

    def of(self, owner: str) -> "TakenIn":
        return self

    async def checkpoint(self, file: Received, key: str = "") -> Any:
        content = file.path.read_bytes()
        assert (file.nbytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        self.files.append(content)
        return rows.checkpoint(id=f"id-{len(self.files)}"), True


class Replicas:
    """Two servers that share a database and a blob store."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.settings = Settings(data_dir=folder, upload_expiry_hours=2, lease_seconds=0.3, poll_seconds=0.01, inspectors=0)
        self.folder = folder
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.taken_in = TakenIn(database)
        self.stopping = [Event(), Event()]
        self.one, self.two = (
            Uploads(self.settings, database, Blobs(self.settings.blobs), self.taken_in, stopping) for stopping in self.stopping
        )

    async def begin(self, length: int | None = len(CONTENT)) -> str:
        return (await self.one.create(NewUpload("checkpoint", "net.pt", length))).id

    async def under_way(self, id: str, fence: int = 1) -> None:
        """Returns when a request has taken the upload over: the first one, or that of this number."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await self.two.find(id)).fence < fence:
                await asyncio.sleep(0.01)

    def parts(self, id: str) -> list[int]:
        """The sizes of the parts of an upload."""
        with self.database.read() as session:
            return [part.size for part in uploads.parts(session, id)]

    def leased_until(self, id: str) -> datetime:
        """When the lease of an upload ends."""
        with self.database.read() as session:
            until = session.get_one(Upload, id).leased_until
        assert until
        return until

    def blobs(self) -> int:
        """How many blobs there are."""
        return len(files(self.folder / "blobs"))


@pytest.fixture
def replicas(database: Database, tmp_path: Path) -> Iterator[Replicas]:
    made = Replicas(database, tmp_path / "data")
    with patch("service.uploads.resumable.now", lambda session: made.now):
        yield made


class Killed(BaseException):
    """Ends a request as nothing else does."""


async def these(pieces: Iterable[bytes], then: BaseException | None = None) -> AsyncIterator[bytes]:
    """The body of a request, which may end with an exception."""
    for piece in pieces:
        yield piece
    if then:
        raise then


def pieces(content: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    """The content in pieces of these sizes, again and again."""
    start = 0
    while True:
        for size in sizes:
            if start >= len(content):
                return
            yield content[start : start + size]
            start += size


@pytest.mark.parametrize("size", [1_000, 4_096, 70_000, 100_000])
def test_requests_of_any_length_at_any_replica_make_the_file(replicas: Replicas, size: int) -> None:
    async def run() -> None:
        id, offset = await replicas.begin(), 0
        for number, piece in enumerate(pieces(CONTENT, [size])):
            replica = (replicas.one, replicas.two)[number % 2]
            assert (await replica.find(id)).offset == offset
            offset = (await replica.append(id, offset, these([piece]))).offset
            sizes = replicas.parts(id)
            assert sum(sizes) == offset
            assert len(sizes) == replicas.blobs() <= offset / 2**16 + 2 * (2**16).bit_length()
        ended = await replicas.two.finish(id)
        assert (ended.state, ended.resource) == ("done", "/v1/checkpoints/id-1")

    with patch.object(parts, "PART_BYTES", 2**16):
        asyncio.run(run())
    assert replicas.taken_in.files == [CONTENT]
    assert replicas.blobs() == 0


def test_the_number_of_parts_stays_small_however_short_the_requests_are(replicas: Replicas) -> None:
    async def run() -> None:
        id = await replicas.begin()
        for offset in range(300):
            await replicas.one.append(id, offset, these([CONTENT[offset : offset + 1]]))
        assert len(replicas.parts(id)) <= 10

    asyncio.run(run())


def test_what_a_request_sent_before_its_process_died_is_kept(replicas: Replicas) -> None:
    """A part is stored as soon as it is full, so only what came after the last part is lost."""

    async def run() -> None:
        id = await replicas.begin()
        with pytest.raises(Killed):
            await replicas.one.append(id, 0, these(pieces(CONTENT, [1_000]), then=Killed()))
        assert (await replicas.two.find(id)).offset == 66_000

    with patch.object(parts, "PART_BYTES", 2**16):
        asyncio.run(run())


def test_a_pause_stores_what_has_arrived(replicas: Replicas) -> None:
    async def run() -> None:
        id = await replicas.begin()

        async def body() -> AsyncIterator[bytes]:
            for number in range(3):
                yield b"x"
                while (await replicas.two.find(id)).offset <= number:
                    await asyncio.sleep(0.01)

        async with asyncio.timeout(DEADLINE_SECONDS):
            assert (await replicas.one.append(id, 0, body())).offset == 3

    with patch.object(resumable, "PAUSE_SECONDS", 0.01):
        asyncio.run(run())


def test_a_request_ends_the_one_before_it_whose_bytes_are_kept(replicas: Replicas) -> None:
    """The connection of the first request is dead, but the server has not noticed that."""

    async def run() -> None:
        id = await replicas.begin()

        async def dead() -> AsyncIterator[bytes]:
            yield CONTENT[:1000]
            await asyncio.Event().wait()

        first = asyncio.create_task(replicas.one.append(id, 0, dead()))
        await replicas.under_way(id)
        assert (await replicas.one.settle(id)).offset == 1000
        second = asyncio.create_task(replicas.one.append(id, 1000, dead()))
        await replicas.under_way(id, 2)
        assert (await replicas.one.append(id, 2000, these([CONTENT[2000:]]))).state == "received"
        for request in (first, second):
            with pytest.raises(problems.Locked):
                await request

    asyncio.run(run())


def test_of_two_requests_at_one_offset_the_later_goes_on(replicas: Replicas) -> None:
    async def run() -> None:
        id = await replicas.begin()

        async def slow() -> AsyncIterator[bytes]:
            yield CONTENT[:10]
            await replicas.under_way(id)
            await replicas.two.append(id, 0, these([CONTENT[:200]]))
            yield CONTENT[10:20]

        with pytest.raises(problems.Locked):
            await replicas.one.append(id, 0, slow())
        assert (await replicas.two.find(id)).offset == 200
        assert replicas.blobs() == 1
        await replicas.one.append(id, 200, these([CONTENT[200:]]))
        await replicas.one.finish(id)

    asyncio.run(run())
    assert replicas.taken_in.files == [CONTENT]


def test_many_requests_at_once_never_mix(replicas: Replicas) -> None:
    """Each client sends the whole rest again and again, as fast as it can, until the upload is complete."""

    async def client(replica: Uploads, id: str, seed: int) -> None:
        sizes = np.random.default_rng(seed).integers(1, 9_000, 20).tolist()
        while (upload := await replica.find(id)).state == "receiving":
            rest = CONTENT[upload.offset : upload.offset + 30_000]
            try:
                await replica.append(id, upload.offset, these(pieces(rest, sizes)))
            except (problems.Locked, problems.OffsetConflict):
                await asyncio.sleep(0.001 * seed)
        await replica.finish(id)

    async def run() -> None:
        id = await replicas.begin()
        clients = [client(replica, id, seed) for seed, replica in enumerate([replicas.one, replicas.two] * 2)]
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.gather(*clients)

    with patch.object(parts, "PART_BYTES", 2**13):
        asyncio.run(run())
    assert replicas.taken_in.files == [CONTENT]
    assert replicas.blobs() == 0


def test_a_request_whose_last_part_another_request_has_replaced_ends(replicas: Replicas) -> None:
    async def run() -> None:
        id = await replicas.begin()
        await replicas.one.append(id, 0, these([CONTENT[:100]]))
        with patch.object(parts, "_read", side_effect=FileNotFoundError), pytest.raises(problems.Locked):
            await replicas.two.append(id, 100, these([CONTENT[100:200]]))

    asyncio.run(run())


def test_with_a_checksum_nothing_is_kept_of_a_body_that_is_cut_off(replicas: Replicas) -> None:
    right = Checksum("sha256", hashlib.sha256(CONTENT).digest())

    async def run() -> None:
        id = await replicas.begin()
        for body in (these([CONTENT[:70_000]]), these([CONTENT[:70_000]], then=OSError())):
            with pytest.raises((problems.ChecksumMismatch, OSError)):
                await replicas.one.append(id, 0, body, checksum=right)
            assert (await replicas.one.find(id)).offset == replicas.blobs() == 0
        await replicas.one.append(id, 0, these(pieces(CONTENT, [50_000])), checksum=right)
        assert len(replicas.parts(id)) == 2
        await replicas.two.finish(id)

    with patch.object(parts, "PART_BYTES", 2**15):
        asyncio.run(run())
    assert replicas.taken_in.files == [CONTENT]


def test_a_replica_that_died_while_it_inspected_is_replaced(replicas: Replicas) -> None:
    async def run() -> None:
        id = await replicas.begin()
        await replicas.one.append(id, 0, these([CONTENT]))
        with replicas.database.write() as session:
            assert uploads.lease(session, id, now=replicas.now, until=replicas.now + timedelta(seconds=30))
        await replicas.two.sweep()
        assert (await replicas.two.find(id)).state == "received"
        replicas.now += timedelta(seconds=31)
        await replicas.two.sweep()
        assert (await replicas.two.find(id)).state == "done"

    asyncio.run(run())
    assert replicas.taken_in.files == [CONTENT]


def test_a_second_request_waits_for_the_inspection(replicas: Replicas) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()
    taken_in = replicas.taken_in.checkpoint

    async def slow(file: Received, key: str) -> Any:
        started.set()
        await go_on.wait()
        return await taken_in(file, key)

    async def run() -> None:
        id = await replicas.begin()
        await replicas.one.append(id, 0, these([CONTENT]))
        first = asyncio.create_task(replicas.one.finish(id))
        await started.wait()
        second = asyncio.create_task(replicas.two.finish(id))
        for _ in range(3):
            # Together this is longer than a lease, which the first replica extends.
            replicas.now += timedelta(seconds=replicas.settings.lease_seconds / 2)
            while replicas.leased_until(id) < replicas.now + timedelta(seconds=replicas.settings.lease_seconds):
                await asyncio.sleep(0.01)
        replicas.stopping[1].set()
        with pytest.raises(problems.Unavailable, match="stopping"):
            await second
        third = asyncio.create_task(replicas.two.finish(id))
        replicas.stopping[1].clear()
        go_on.set()
        assert (await first).resource == (await third).resource == "/v1/checkpoints/id-1"

    with patch.object(replicas.taken_in, "checkpoint", slow):
        asyncio.run(asyncio.wait_for(run(), timeout=60))
    assert replicas.taken_in.files == [CONTENT]


def test_a_file_that_breaks_the_service_is_not_tried_for_ever(replicas: Replicas) -> None:
    async def run() -> None:
        id = await replicas.begin()
        await replicas.one.append(id, 0, these([CONTENT]))
        with patch.object(replicas.taken_in, "checkpoint", side_effect=RuntimeError("a fault")) as tried:
            for _ in range(replicas.settings.max_attempts):
                with pytest.raises(RuntimeError):
                    await replicas.two.sweep()
            await replicas.two.sweep()
            assert tried.call_count == replicas.settings.max_attempts
        assert (await replicas.one.finish(id)).state == "done"

    asyncio.run(run())


def test_another_owner_ends_no_request(replicas: Replicas) -> None:
    async def run() -> None:
        id = await replicas.begin()
        begun, rest = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield CONTENT[:1000]
            begun.set()
            await rest.wait()
            yield CONTENT[1000:]

        appending = asyncio.create_task(replicas.one.append(id, 0, slowly()))
        await begun.wait()
        stranger = replicas.one.of("stranger")
        for ask in (stranger.settle(id), stranger.append(id, 0, these([b"x"])), stranger.abandon(id), stranger.finish(id)):
            with pytest.raises(problems.NotFound):
                await ask
        rest.set()
        assert (await appending).offset == len(CONTENT)

    asyncio.run(run())


def test_a_server_that_stops_hands_the_upload_over(replicas: Replicas) -> None:
    async def run() -> None:
        id = await replicas.begin()

        async def body() -> AsyncIterator[bytes]:
            replicas.stopping[0].set()
            yield CONTENT[:1000]
            await asyncio.Event().wait()

        with pytest.raises(problems.Unavailable, match="stopping"):
            await replicas.one.append(id, 0, body())
        assert (await replicas.two.append(id, 1000, these([CONTENT[1000:]]))).state == "received"

    asyncio.run(run())


def test_uploads_expire_after_the_time_that_is_set_and_are_removed(replicas: Replicas) -> None:
    """NERN_UPLOAD_EXPIRY_HOURS is 2 here. Every byte that arrives prolongs the time."""

    async def run() -> None:
        hours, kept = timedelta(hours=1), await replicas.begin()
        done = await replicas.begin()
        await replicas.one.append(done, 0, these([CONTENT]))
        await replicas.one.finish(done)
        replicas.now += 1.5 * hours
        await replicas.one.append(kept, 0, these([b"abc"]))
        other = await replicas.begin()
        replicas.now += 1.5 * hours
        assert (await replicas.one.find(kept)).offset == 3
        with pytest.raises(problems.Gone):
            await replicas.one.find(done)
        replicas.now += 0.6 * hours
        for id in (kept, other):
            with pytest.raises(problems.Gone, match="expired"):
                await replicas.one.append(id, 0 if id == other else 3, these([b"d"]))
        assert replicas.blobs() == 1
        replicas.now += GRACE
        await asyncio.gather(replicas.one.sweep(), replicas.two.sweep())
        await replicas.two.sweep()
        assert replicas.blobs() == 0
        for id in (kept, other, done):
            with pytest.raises(problems.NotFound):
                await replicas.one.find(id)

    asyncio.run(run())
    with replicas.database.read() as session:
        assert not session.query(Upload).count()
        assert not session.query(UploadPart).count()


def test_a_part_that_is_stored_after_the_end_of_its_upload_is_removed_too(replicas: Replicas) -> None:
    async def run() -> None:
        id = await replicas.begin()
        with patch.object(Blobs, "delete", side_effect=OSError("killed")), pytest.raises(OSError, match="killed"):
            await replicas.one.append(id, 0, ended_meanwhile(id))
        assert replicas.blobs() == 1
        replicas.now += GRACE
        await replicas.two.sweep()
        assert replicas.blobs() == 0

    async def ended_meanwhile(id: str) -> AsyncIterator[bytes]:
        await replicas.under_way(id)
        await replicas.two.abandon(id)
        yield b"abc"

    asyncio.run(run())


def test_an_answer_of_the_database_that_is_lost_loses_no_bytes(replicas: Replicas) -> None:
    """The connection breaks after the commit: the client is told of a failure, asks for the offset, and goes on there."""
    write = replicas.database.write

    @contextmanager
    def lost() -> Iterator[Session]:
        with write() as session:
            yield session
        raise Away("the server went away")

    replacement = patch.object(replicas.database, "write", lost)

    async def body(id: str) -> AsyncIterator[bytes]:
        await replicas.under_way(id)
        replacement.start()
        yield CONTENT[:1000]

    async def run() -> None:
        id = await replicas.begin()
        with pytest.raises(Away):
            await replicas.one.append(id, 0, body(id))
        replacement.stop()
        assert (await replicas.two.find(id)).offset == 1000
        await replicas.two.append(id, 1000, these([CONTENT[1000:]]))
        await replicas.two.finish(id)

    asyncio.run(run())
    assert replicas.taken_in.files == [CONTENT]
