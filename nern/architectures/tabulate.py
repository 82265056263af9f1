"""Makes `table.json` from the installed torchvision: `python -m nern.architectures.tabulate`.

A release is made with the newest torchvision that the constraints allow.
"""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from nern.architectures.matching import COUNTER
from nern.architectures.networks import Variant, names, variants
from nern.architectures.skeleton import skeleton

PATH = Path(__file__).with_name("table.json")


def main() -> None:
    """Writes the table."""
    PATH.write_text(tabulate())


def tabulate() -> str:
    """The content of `table.json`. Builds every network without its weights."""
    modules: dict[str, Any] = {}
    architectures = {name: [describe(variant, modules) for variant in variants(name)] for name in names()}
    # Each variant and each module has a line, so that the diff shows what a new release of torchvision changes.
    lines = [f"{json.dumps(name)}: [\n{_lines(entries)}\n]" for name, entries in architectures.items()]
    parts = [f"{json.dumps(digest)}: {json.dumps(module)}" for digest, module in modules.items()]
    return '{"architectures": {\n' + ",\n".join(lines) + '\n},\n"modules": {\n' + ",\n".join(parts) + "\n}}\n"


def describe(variant: Variant, modules: dict[str, Any]) -> dict[str, Any]:
    """The entry of one variant in the table. Adds the modules of the variant to `modules`."""
    network, other = (skeleton(partial(variant.build, classes)) for classes in (variant.classes, variant.classes + 1))
    shapes, others = _shapes(network), _shapes(other)
    groups = {f"{path}.weight": conv.groups for path, conv in network.named_modules() if isinstance(conv, _ConvNd)}
    tree: dict[str, Any] = {}
    for name, shape in shapes.items():
        *path, leaf = name.split(".")
        module = tree
        for child in path:
            module = module.setdefault(child, {})
        module[leaf] = [shape, groups[name]] if name in groups else shape
    return {
        "image_size": variant.image_size,
        "classes": variant.classes,
        "stem": next(name for name, shape in shapes.items() if len(shape) == 4),
        "classifiers": [name for name, shape in shapes.items() if shape != others[name]],
        "tensors": len(shapes),
        "module": _add(tree, modules),
    }


def _shapes(network: nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items() if not name.endswith(COUNTER)}


def _add(tree: dict[str, Any], modules: dict[str, Any]) -> str:
    """Adds a module and its submodules to `modules`, and returns the digest of the module."""
    module = {child: _add(content, modules) if isinstance(content, dict) else content for child, content in tree.items()}
    digest = hashlib.blake2b(json.dumps(module).encode(), digest_size=4).hexdigest()
    assert modules.setdefault(digest, module) == module, "two modules have the same digest: make digests longer"
    return digest


def _lines(entries: list[dict[str, Any]]) -> str:
    return ",\n".join(json.dumps(entry) for entry in entries)


if __name__ == "__main__":
    main()
