"""Cancellation of work that takes long.

A *cancellation* is a function that such work calls now and then. To end the work, the function raises an exception.
"""

from collections.abc import Callable

Cancellation = Callable[[], None]


def never() -> None:
    """A cancellation that never raises."""
