"""Parts of the sentences about a file."""

from collections.abc import Iterable

# Sentences name so many things, and count the others.
NAMED = 5


def listed(names: Iterable[str]) -> str:
    """Some names as text, and the number of the others."""
    everything = list(names)
    text = ", ".join(repr(name[:200]) for name in everything[:NAMED])
    return text + (f" and {len(everything) - NAMED} more" if len(everything) > NAMED else "")


def and_others(count: int) -> str:
    """The end of a list of which one thing was named: nothing, or how many others there are."""
    return f" and {count} others" if count > 1 else " and one other" if count else ""
