"""How work that takes long is ended from outside: the work calls a cancellation now and then, which raises to end it."""

from collections.abc import Callable

Cancellation = Callable[[], None]


def never() -> None:
    """A cancellation that ends nothing."""
