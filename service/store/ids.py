"""Ids that sort by the time of their creation."""

import secrets
import time
import uuid
from collections.abc import Callable
from threading import Lock

SEQUENCE_BITS = 42
RANDOM_BITS = 32

# The first sequence number of a millisecond has its highest bit clear, so that at least 2**41 more ids fit in the millisecond.
START_BITS = SEQUENCE_BITS - 1


def _unix_milliseconds() -> int:
    return time.time_ns() // 1_000_000


class Ids:
    """A source of UUIDs of version 7 (RFC 9562, section 5.7). Threads may share it. Each id is greater than all before it.

    An id has 48 bits of Unix milliseconds, a sequence number of 42 bits, and 32 random bits, besides version and variant. The
    sequence number starts at a random value in each millisecond and counts the ids of the millisecond (section 6.2, method 1).
    While the clock stands still or goes back, ids keep the latest millisecond that the clock has shown.
    """

    def __init__(
        self, milliseconds: Callable[[], int] = _unix_milliseconds, randbits: Callable[[int], int] = secrets.randbits
    ) -> None:
        self._milliseconds = milliseconds
        self._randbits = randbits
        self._lock = Lock()
        self._latest = -1
        self._sequence = 0

    def new(self) -> str:
        """The next id."""
        with self._lock:
            if (now := self._milliseconds()) > self._latest:
                self._latest, self._sequence = now, self._randbits(START_BITS)
            else:
                self._sequence += 1
                if self._sequence >> SEQUENCE_BITS:
                    self._latest, self._sequence = self._latest + 1, self._randbits(START_BITS)
            latest, sequence = self._latest, self._sequence
        return str(uuid.UUID(int=_version_7(latest, sequence << RANDOM_BITS | self._randbits(RANDOM_BITS))))


def _version_7(milliseconds: int, low: int) -> int:
    """The UUID as an integer: 48 bits of time, the version, the upper 12 of the 74 bits in `low`, the variant, the other 62."""
    upper, lower = low >> 62, low & (1 << 62) - 1
    return milliseconds << 80 | 0x7 << 76 | upper << 64 | 0x2 << 62 | lower


process_ids = Ids()


def new_id() -> str:
    """An id from the source that the whole process shares."""
    return process_ids.new()
