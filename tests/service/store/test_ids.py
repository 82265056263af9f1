"""Ids sort by creation, whatever the clock does."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from uuid import UUID

import pytest

from service.store import ids
from service.store.ids import RANDOM_BITS, SEQUENCE_BITS, START_BITS, Ids

NOW = 1_767_225_600_000


def clock(*milliseconds: int) -> Callable[[], int]:
    return iter(milliseconds).__next__


def lowest(bits: int) -> int:
    return 0


def highest(bits: int) -> int:
    return (1 << bits) - 1


def test_ids_of_one_process_sort_by_time_and_are_of_version_7() -> None:
    before = time.time_ns() // 1_000_000
    made = [ids.new_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(id[14] == "7" and id[19] in "89ab" for id in made)
    assert [id[:13] for id in made] == sorted(id[:13] for id in made)
    assert made == sorted(made)
    assert before <= UUID(made[0]).int >> 80 <= time.time_ns() // 1_000_000


@pytest.mark.parametrize(
    "milliseconds",
    [
        (NOW, NOW, NOW, NOW),
        (NOW, NOW - 5_000, NOW - 4_000, NOW - 4_000),
        (NOW, NOW, NOW - 1, NOW + 1),
        (NOW, NOW + 1, NOW, NOW),
    ],
    ids=["within a millisecond", "clock set back", "back and on", "on and back"],
)
def test_ids_sort_by_creation_whatever_the_clock_does(milliseconds: tuple[int, ...]) -> None:
    source = Ids(clock(*milliseconds))
    made = [source.new() for _ in milliseconds]
    assert made == sorted(set(made))
    assert [UUID(id).int >> 80 for id in made] == [max(milliseconds[: index + 1]) for index in range(len(milliseconds))]


@pytest.mark.parametrize("randbits", [lowest, highest])
def test_the_bits_of_an_id_are_where_the_rfc_has_them(randbits: Callable[[int], int]) -> None:
    made = UUID(Ids(clock(NOW), randbits).new())
    assert (made.version, made.variant, made.int >> 80) == (7, "specified in RFC 4122", NOW)
    low = (made.int >> 64 & 0xFFF) << 62 | made.int & (1 << 62) - 1
    assert low == randbits(START_BITS) << RANDOM_BITS | randbits(RANDOM_BITS)


def test_each_millisecond_starts_at_random_and_two_processes_make_different_ids() -> None:
    first, second = Ids(clock(NOW, NOW + 1)), Ids(clock(NOW, NOW + 1))
    made = [source.new()[14:] for source in (first, second) for _ in range(2)]
    assert len(set(made)) == 4


def test_ids_of_one_millisecond_that_run_out_go_on_in_the_next() -> None:
    def nearly_all(bits: int) -> int:
        return (1 << SEQUENCE_BITS) - 1 if bits == START_BITS else 0

    source = Ids(lambda: NOW, nearly_all)
    first, second = source.new(), source.new()
    assert first < second
    assert UUID(second).int >> 80 == NOW + 1


def test_threads_share_one_order() -> None:
    reading, together = Lock(), Barrier(8)

    def alone() -> int:
        """A clock that lets other threads run while it is read, and that no two threads may read at once."""
        assert reading.acquire(blocking=False)
        time.sleep(0)
        reading.release()
        return NOW

    source = Ids(alone)

    def make(_: int) -> list[str]:
        together.wait()
        return [source.new() for _ in range(500)]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert all(ids == sorted(ids) for ids in made)
    assert len({id for ids in made for id in ids}) == 4000


def test_the_source_of_a_process_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "process_ids", Ids(lambda: NOW, lowest))
    assert ids.new_id() == "019b76da-a800-7000-8000-000000000000"
