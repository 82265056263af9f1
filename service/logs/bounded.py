"""A handler that bounds the log, whatever clients do."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import TextIO

from service.logs.context import about

# So much may come from one place in the code in a minute, for one owner. It is some 600 lines about requests.
BYTES_PER_MINUTE = 2**18


class BoundedHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream, and leaves out those of a place in the code that has written its share of the minute.

    The next line of the place says how many were left out. Each owner has a share of its own, and so has all work without one.
    """

    def __init__(self, stream: TextIO, seconds: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._seconds = seconds
        self._minute = 0
        self._written: Counter[tuple[str, int, object]] = Counter()
        self._omitted: Counter[tuple[str, int, object]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if (minute := int(self._seconds() // 60)) != self._minute:
                self._minute = minute
                self._written.clear()
            place = (record.pathname, record.lineno, about().get("owner"))
            if self._written[place] >= BYTES_PER_MINUTE:
                self._omitted[place] += 1
                return
            record.omitted = self._omitted.pop(place, 0)
            line = self.format(record) + self.terminator
            self._written[place] += len(line)
            # One call, so that the lines of processes that share the stream do not mix.
            self.stream.write(line)
            self.flush()
        except Exception:
            self.handleError(record)
