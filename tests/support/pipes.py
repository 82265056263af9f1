"""Files that block the process that writes to them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def endless(path: Path) -> Iterator[None]:
    """A block in which `path` is a pipe without a reader: opening the pipe succeeds, but writing more than fits never ends."""
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield
    finally:
        os.close(descriptor)
