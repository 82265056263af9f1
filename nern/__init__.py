"""Neural representations of convolutional networks: the method as a library. docs/method.md describes it."""

from typing import Any

__all__ = ["export"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and much that imports `nern` does not need it.
    if name == "export":
        from nern.exporting import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
