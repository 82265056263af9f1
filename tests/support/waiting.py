"""Waiting for a condition instead of for a time, and how long a test waits at most for anything."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

# Nothing takes so long, on a machine that is ten times slower either. A test that waits for so long has failed.
DEADLINE_SECONDS = 600


def until(condition: Callable[[], Value], *, what: str = "the condition") -> Value:
    """The first true value of `condition`. Fails after DEADLINE_SECONDS."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {DEADLINE_SECONDS} seconds")
        time.sleep(0.05)
    return value
