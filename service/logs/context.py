"""What the work at hand is about: the ids that every line of the log carries.

The ids belong to a task or thread (`contextvars`). A task takes them over from the task that made it, and so do the threads of
`run_in_threadpool` and `asyncio.to_thread`. A `threading.Thread` does not: its target must be `contextvars.copy_context().run`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypedDict, Unpack


class About(TypedDict, total=False):
    """The ids. docs/logs.md explains them."""

    request_id: str
    job_id: str
    owner: str
    attempt: int
    fence: int


_about: ContextVar[About | None] = ContextVar("nern.about", default=None)


def about() -> About:
    """The ids of the work at hand."""
    return _about.get() or {}


def begin(**ids: Unpack[About]) -> None:
    """Begins other work: forgets the ids of the work before, and remembers these until the task ends."""
    _about.set(ids)


def add(**ids: Unpack[About]) -> None:
    """Adds what is known by now about the work at hand, until the task ends."""
    _about.set({**about(), **ids})


@contextmanager
def within(**ids: Unpack[About]) -> Iterator[None]:
    """A block whose lines carry these ids too."""
    token = _about.set({**about(), **ids})
    try:
        yield
    finally:
        _about.reset(token)
