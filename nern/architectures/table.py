"""What is known of every architecture before any network is built: a table that is made with each release.

`table.json` lists the variants of each architecture. Equal modules, such as the blocks of a network, are in the table once,
under a digest of their content. `python -m nern.architectures.tabulate` makes the table.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

Shape = tuple[int, ...]

# A module by the names of its children: the digest of a module; or a tensor's shape, and the groups of a convolution's weight.
Module = Mapping[str, str | list[int] | tuple[list[int], int]]


@dataclass(frozen=True)
class Entry:
    """One variant of an architecture, as it is built by default.

    `stem` is the weight of the first convolution, whose second extent is the number of input channels; the first extent of
    `heads` is the number of classes. `tensors` counts the names in `shapes`. Counters of batch norms are left out.
    """

    image_size: int
    classes: int
    stem: str
    heads: tuple[str, ...]
    tensors: int
    module: str
    modules: Mapping[str, Any]

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of all tensors by name."""
        return {name: tuple(shape) for name, shape, _ in self._leaves(self.module, "")}

    @cached_property
    def groups(self) -> dict[str, int]:
        """The number of groups of all convolutions, by the name of the weight."""
        return {name: groups for name, _, groups in self._leaves(self.module, "") if groups}

    def _leaves(self, module: str, prefix: str) -> Iterator[tuple[str, list[int], int]]:
        for child, content in self.modules[module].items():
            if isinstance(content, str):
                yield from self._leaves(content, f"{prefix}{child}.")
            elif content and isinstance(content[0], list):
                yield f"{prefix}{child}", content[0], content[1]
            else:
                yield f"{prefix}{child}", content, 0


@cache
def read() -> dict[str, list[Entry]]:
    """The variants of every architecture by its name."""
    content = json.loads((files("nern.architectures") / "table.json").read_text())
    return {
        name: [Entry(**fields, modules=content["modules"]) for fields in variants]
        for name, variants in content["architectures"].items()
    }
