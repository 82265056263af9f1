"""The log of this process as JSON lines, while a block runs."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

from service.logs.bounded import BoundedHandler
from service.logs.configuration import levels
from service.logs.formats import JsonFormatter

Line = dict[str, Any]


class Lines:
    """What has been logged."""

    def __init__(self) -> None:
        self._stream = StringIO()
        self.handler = BoundedHandler(self._stream)
        self.handler.setFormatter(JsonFormatter())

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def all(self, **fields: Any) -> list[Line]:
        """The lines with these fields."""
        lines = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in lines if fields.items() <= line.items()]


@contextmanager
def logged(level: int = logging.INFO) -> Iterator[Lines]:
    """A block in which what is logged is also written as JSON lines."""
    lines, root = Lines(), logging.getLogger()
    wanted = {logging.getLogger(name): value for name, value in levels(level).items()}
    before = {logger: logger.level for logger in wanted}
    for logger, value in wanted.items():
        logger.setLevel(value)
    root.addHandler(lines.handler)
    try:
        yield lines
    finally:
        root.removeHandler(lines.handler)
        for logger, value in before.items():
            logger.setLevel(value)
