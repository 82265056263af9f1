"""The log is bounded: a place in the code writes so much in a minute."""

import logging
from io import StringIO

from service.logs import bounded, context
from service.logs.bounded import BoundedHandler


class Written:
    """A handler whose clock stands still until it is moved, and a logger with it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._stream = StringIO()
        handler = BoundedHandler(self._stream, lambda: self.now)
        handler.setFormatter(logging.Formatter("%(message)s %(omitted)d"))
        self.log = logging.Logger("test")  # one for this test alone
        self.log.addHandler(handler)

    def flood(self) -> None:
        for _ in range(100_000):
            self.log.warning("one more request is malformed")

    @property
    def lines(self) -> list[str]:
        return self._stream.getvalue().splitlines()


def test_a_flood_of_one_line_is_cut_off_and_other_lines_are_not() -> None:
    written = Written()
    written.flood()
    assert bounded.BYTES_PER_MINUTE <= sum(len(line) + 1 for line in written.lines) < bounded.BYTES_PER_MINUTE + 100
    written.log.warning("something else")
    assert written.lines[-1] == "something else 0"


def test_the_next_minute_tells_how_many_lines_were_left_out() -> None:
    written = Written()
    written.flood()
    before = len(written.lines)
    written.now += 60
    written.flood()
    assert written.lines[before] == f"one more request is malformed {100_000 - before}"
    assert written.lines[before + 1] == "one more request is malformed 0"


def test_an_owner_does_not_take_the_share_of_another() -> None:
    written = Written()
    with context.within(owner="noisy"):
        written.flood()
    before = len(written.lines)
    with context.within(owner="quiet"):
        written.flood()
    assert len(written.lines) > 1.9 * before
