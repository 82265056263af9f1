"""The table of facts about every architecture, so that no network has to be built to recognise one.

`table.json` has the variants of each architecture. Equal modules, such as the blocks of a network, are in the table once, under
a digest of their content. `python -m nern.architectures.tabulate` makes the table; each release has a new one.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

Shape = tuple[int, ...]

# The children of a module by name. A child is the digest of a module, the shape of a tensor, or the shape of a convolution's
# weight with the number of groups.
Module = Mapping[str, str | list[int] | tuple[list[int], int]]


@dataclass(frozen=True)
class Entry:
    """One variant of an architecture, with its default number of classes. Counters of batch norms are left out.

    image_size: the height and width of the images, in pixels.
    classes: the default number of classes.
    stem: the name of the weight of the first convolution. Its second extent is the number of input channels.
    classifiers: the names of the tensors whose first extent is the number of classes.
    tensors: the number of tensors.
    module: the digest of the whole network in `modules`.
    modules: all modules of the table by digest.
    """

    image_size: int
    classes: int
    stem: str
    classifiers: tuple[str, ...]
    tensors: int
    module: str
    modules: Mapping[str, Any]

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every tensor by name."""
        return {name: tuple(shape) for name, shape, _ in self._leaves(self.module, "")}

    @cached_property
    def groups(self) -> dict[str, int]:
        """The number of groups of every convolution, by the name of its weight."""
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
    """The variants of every architecture, by the name of the architecture."""
    content = json.loads((files("nern.architectures") / "table.json").read_text())
    return {
        name: [Entry(**fields, modules=content["modules"]) for fields in variants]
        for name, variants in content["architectures"].items()
    }
