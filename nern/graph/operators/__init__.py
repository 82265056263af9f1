"""The allow-list: every operator that a program may call, by name, and the function that computes it with torch."""

from collections.abc import Callable
from typing import Any

from nern.errors import BadProgram

Function = Callable[..., Any]

OPERATORS: dict[str, Function] = {}


def operator(*names: str) -> Callable[[Function], Function]:
    """A decorator that puts a function into the allow-list under these names."""

    def add(function: Function) -> Function:
        for name in names:
            assert name not in OPERATORS, f"two functions compute {name}"
            OPERATORS[name] = function
        return function

    return add


def find(name: str, place: str) -> Function:
    """The function of an operator. Raises BadProgram for an operator that is not in the allow-list."""
    if name not in OPERATORS:
        raise BadProgram(f"the operator {name} at {place!r} is not supported")
    return OPERATORS[name]


# The modules below fill the list, so they are imported when it exists.
from nern.graph.operators import onnx as onnx  # noqa: E402
