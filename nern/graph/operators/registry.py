"""The allow-list as a table, which the modules of operators fill."""

from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]

OPERATORS: dict[str, Function] = {}

ON_DEVICE: set[str] = set()
"""The operators that create tensors from numbers. They take the device as the keyword `device`."""


def operator(*names: str, on_device: bool = False) -> Callable[[Function], Function]:
    """A decorator that puts a function into the allow-list under these names.

    With `on_device`, the interpreter calls the function with the keyword `device`, which is the device of the inputs.
    """

    def add(function: Function) -> Function:
        for name in names:
            assert name not in OPERATORS, f"two functions compute {name}"
            OPERATORS[name] = function
            if on_device:
                ON_DEVICE.add(name)
        return function

    return add
