"""How work that takes long is ended from outside: it calls a check now and then, which raises."""

from collections.abc import Callable

Check = Callable[[], None]


def nothing() -> None:
    """A check that ends nothing."""
