"""Files that are never done."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def endless(path: Path) -> Iterator[None]:
    """A pipe at `path` that nobody reads from: opening it succeeds, and writing more than it holds never ends."""
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield
    finally:
        os.close(descriptor)
