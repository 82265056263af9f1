"""Views of the names of a state_dict: what the names are without prefixes, wrappers inside names and foreign tensors.

A network is often an attribute of another module (`backbone.`, `encoder.`, `model.`), or wrapped (`module.` by DataParallel,
`_orig_mod.` by torch.compile), also in its middle (`features.module.0.weight`). Architectures are recognised, and modules are
built, with *bare* names. Everything else uses the names of the file. This module does not import torch.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

T = TypeVar("T")

# The attributes in which DataParallel and torch.compile keep the module that they wrap.
WRAPPER = re.compile(r"(?<![^.])(?:module|_orig_mod)\.")

# Tensors that training code keeps beside the layers of a network: counters, and the buffers of losses and metrics.
FOREIGN = re.compile(
    r"(?:n_averaged|initted|steps?|global_step|epoch|num_updates|decay)$"
    r"|(?:\w*_)?(?:criterion|criteria|loss|losses|loss_fn|metric|metrics|acc|accuracy|confmat|f1|auroc)(?:_\w+)?(?:\.|$)"
)

# A prefix that fewer names have is a part of a network. Few networks in one file have fewer.
SMALLEST_SHARE = 1 / 16


@dataclass(frozen=True)
class View:
    """Some names of a state_dict, without their prefix. `bare` maps each bare name to the name in the file."""

    prefix: str
    bare: dict[str, str]

    def of(self, values: Mapping[str, T]) -> dict[str, T]:
        """Values by bare name, from values by the name in the file. Names outside of the view are left out."""
        return {bare: values[name] for bare, name in self.bare.items() if name in values}


def views(names: Iterable[str]) -> Iterator[View]:
    """Ways to see the names of a state_dict, those under the most common prefix first.

    The first view has all names, as they are. Under prefixes of equally many names come first the views that only strip the
    prefix, then those without wrappers inside the names, then those without foreign tensors. A view never has two names of the
    file under one bare name.
    """
    ordered = list(names)
    counts = Counter(prefix for name in ordered for prefix in _prefixes(name))
    counts[""] = len(ordered)
    common = [prefix for prefix, count in counts.items() if count >= SMALLEST_SHARE * len(ordered)]
    common.sort(key=lambda prefix: (-counts[prefix], len(prefix)))
    under: dict[str, list[str]] = {prefix: [] for prefix in common}
    for name in ordered:
        for prefix in ("", *_prefixes(name)):
            if prefix in under:
                under[prefix].append(name)
    seen: set[int] = set()
    for _, group in groupby(common, counts.__getitem__):
        prefixes = list(group)
        for narrow in (_as_it_is, _without_wrappers, _without_foreign):
            for prefix in prefixes:
                bare = narrow({name.removeprefix(prefix): name for name in under[prefix]})
                if bare and (mapping := hash(tuple(bare.items()))) not in seen:
                    seen.add(mapping)
                    yield View(prefix, bare)


def _prefixes(name: str) -> Iterator[str]:
    """The prefixes of a name that end with a dot."""
    return (name[: dot.end()] for dot in re.finditer(r"\.", name))


def _as_it_is(bare: dict[str, str]) -> dict[str, str]:
    return bare


def _without_wrappers(bare: dict[str, str]) -> dict[str, str]:
    """Bare names without the attributes of wrappers inside them; nothing if two names would be the same."""
    clean = {WRAPPER.sub("", name): original for name, original in bare.items()}
    return clean if len(clean) == len(bare) else {}


def _without_foreign(bare: dict[str, str]) -> dict[str, str]:
    clean = _without_wrappers(bare) or bare
    return {name: original for name, original in clean.items() if not FOREIGN.match(name)}
