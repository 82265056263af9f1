"""Which part is not ready, and what a part that hangs costs."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from threading import Event
from types import SimpleNamespace

import pytest

from service import readiness
from service.readiness import Readiness
from service.store.marking import WrongBlobStore
from tests.support.waiting import DEADLINE_SECONDS


def well() -> None:
    pass


def failing() -> None:
    raise ConnectionError("nobody listens at db.example.org")


def states_of(**probes: Callable[[], object]) -> dict[str, str]:
    return asyncio.run(Readiness(probes).states())


def test_each_part_that_fails_is_named() -> None:
    assert states_of(database=well, inspection=failing, storage=well) == {
        "database": "ok",
        "inspection": "ConnectionError",
        "storage": "ok",
    }


def test_without_the_broker_the_service_is_degraded() -> None:
    assert states_of(database=well, broker=failing) == {"database": "ok", "broker": "degraded"}


def test_without_the_blob_store_the_service_is_degraded_unless_this_process_alone_lacks_it() -> None:
    def not_mounted() -> None:
        raise WrongBlobStore

    assert states_of(database=well, blobs=failing) == {"database": "ok", "blobs": "degraded"}
    assert states_of(database=well, blobs=not_mounted) == {"database": "ok", "blobs": "WrongBlobStore"}


def test_without_the_database_the_others_are_not_blamed() -> None:
    states = states_of(database=failing, schema=failing, blobs=failing, storage=failing, broker=well)
    assert states == {
        "database": "ConnectionError", "schema": "unknown", "blobs": "unknown", "storage": "ConnectionError", "broker": "ok"
    }  # fmt: skip
    assert states_of(database=failing, blobs=well)["blobs"] == "ok"


def test_probes_run_side_by_side() -> None:
    """Each probe waits until all have begun."""
    all_begun = threading.Barrier(3)
    assert set(states_of(a=all_begun.wait, b=all_begun.wait, c=all_begun.wait).values()) == {"ok"}


def test_the_deadline_counts_from_the_start_of_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks later waits for what is left of the time, and not again."""
    over, begun = Event(), 0

    def hang() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            over.wait(DEADLINE_SECONDS)

    async def ask() -> None:
        parts = Readiness({"storage": hang})
        monkeypatch.setattr(readiness, "PROBE_SECONDS", 0.1)
        assert await parts.states() == {"storage": "TimeoutError"}
        # With so long a deadline, a probe that began just now would hold this test up.
        monkeypatch.setattr(readiness, "PROBE_SECONDS", 2.0 * DEADLINE_SECONDS)
        later = time.monotonic() + readiness.PROBE_SECONDS
        monkeypatch.setattr(readiness, "time", SimpleNamespace(monotonic=lambda: later))
        assert await parts.states() == {"storage": "TimeoutError"}
        assert begun == 1
        over.set()
        while await parts.states() != {"storage": "ok"}:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(ask(), DEADLINE_SECONDS))


def test_requests_at_the_same_time_share_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    over, threads = Event(), []

    def hang() -> None:
        threads.append(threading.current_thread())
        over.wait(DEADLINE_SECONDS)

    async def ask() -> None:
        monkeypatch.setattr(readiness, "PROBE_SECONDS", 0.1)
        parts = Readiness({"database": hang})
        assert await asyncio.gather(*(parts.states() for _ in range(20))) == [{"database": "TimeoutError"}] * 20

    asyncio.run(ask())
    over.set()
    # Such a thread does not keep the process from ending.
    assert [thread.daemon for thread in threads] == [True]


def test_who_stops_waiting_does_not_end_the_probe_of_others() -> None:
    over = Event()

    async def ask() -> None:
        parts = Readiness({"database": lambda: over.wait(DEADLINE_SECONDS)})
        impatient, patient = asyncio.create_task(parts.states()), asyncio.create_task(parts.states())
        await asyncio.sleep(0)
        impatient.cancel()
        over.set()
        assert await patient == {"database": "ok"}

    asyncio.run(ask())


def test_changes_are_logged_once_with_what_clients_do_not_see(caplog: pytest.LogCaptureFixture) -> None:
    works = False

    def probe() -> None:
        if not works:
            failing()

    async def ask() -> None:
        nonlocal works
        parts = Readiness({"database": probe, "storage": well, "broker": probe})
        await parts.states()
        await parts.states()
        works = True
        await parts.states()
        await parts.states()

    with caplog.at_level(logging.INFO):
        asyncio.run(ask())
    assert [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "service.readiness"] == [
        ("WARNING", "readiness of database: ConnectionError: nobody listens at db.example.org"),
        ("WARNING", "readiness of broker: degraded, ConnectionError: nobody listens at db.example.org"),
        ("INFO", "readiness of database: ok"),
        ("INFO", "readiness of broker: ok"),
    ]
