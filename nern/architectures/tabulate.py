"""Makes `table.json` and `modules.txt` from the installed torchvision and timm: `python -m nern.architectures.tabulate`.

A release is made with the newest versions of both that the constraints allow. `--check` compares the files with what the
libraries give; both take some minutes.
"""

import argparse
import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nern.architectures import of_torchvision
from nern.architectures.matching import COUNTER
from nern.architectures.networks import names, variants
from nern.architectures.of_timm import installed, of_timm
from nern.architectures.skeleton import skeleton
from nern.architectures.table import DIGEST, Kind, sums
from nern.architectures.variant import Variant

PATH = Path(__file__).with_name("table.json")
MODULES = Path(__file__).with_name("modules.txt")

# Attributes of modules that do not change what a network computes in eval mode for images of the size that its tensors have.
IRRELEVANT = ("training", "drop", "img_size", "input_size", "grid_size", "num_patches", "feat_size", "cfg", "inplace")


@dataclass(frozen=True)
class Facts:
    """What the table needs to know of a network.

    shapes: the shape of every tensor by name, without the counters of batch norms.
    others: the shapes of the network with one class more.
    groups: the number of groups of every convolution, by the name of its weight.
    containers: the modules that are a sequence of linear layers without norms.
    """

    shapes: Mapping[str, list[int]]
    others: Mapping[str, list[int]]
    groups: Mapping[str, int]
    containers: Collection[str]


class Tabulation:
    """The content of the table, which grows by one architecture after the other."""

    def __init__(self) -> None:
        self.architectures: dict[str, list[list[Any]]] = {}
        self.aliases: dict[str, str] = {}
        self.usual_classes: dict[str, list[int]] = {}
        self.ends: list[dict[str, Any]] = []
        self.bodies: list[list[str]] = []
        self.modules: dict[str, str] = {}

    def add(self, name: str, described: Iterable[tuple[Variant, Facts]]) -> None:
        """Adds an architecture with its variants."""
        self.architectures[name] = []
        for variant, facts in described:
            self.architectures[name].append(self._variant(variant, facts))
            if variant.usual_classes:
                self.usual_classes[name] = list(variant.usual_classes)

    def _variant(self, variant: Variant, facts: Facts) -> list[Any]:
        """The fields of one variant in the table: rank, image size, classes, ends, module, and the sums of its bodies."""
        tree: dict[str, Any] = {}
        for name, shape in facts.shapes.items():
            *path, leaf = name.split(".")
            module = tree
            for child in path:
                module = module.setdefault(child, {})
            module[leaf] = [shape, facts.groups[name]] if name in facts.groups else shape
        classifiers = {
            name: facts.others[name][0] - shape[0] for name, shape in facts.shapes.items() if shape != facts.others[name]
        }
        # The convolutions of the colours. No other convolution of images or videos takes three channels.
        wide = [name for name, groups in facts.groups.items() if groups == 1 and len(facts.shapes[name]) > 3]
        stems = [name for name in wide if facts.shapes[name][1] == 3]
        ends: dict[str, Any] = {"stems": stems, "classifiers": classifiers, "outputs": dict(variant.outputs)}
        if variant.frames:
            ends["frames"] = variant.frames
        bodies = [self._body(head, facts.shapes) for head in _heads(classifiers, facts)]
        return [variant.rank, variant.image_size, variant.classes, _number(self.ends, ends), self._module(tree), bodies]

    def _body(self, head: str, shapes: Mapping[str, Any]) -> list[int]:
        """The number of the body of a network with this head, and the sum of its names."""
        rest = [name for name in shapes if not (head and name.startswith(f"{head}."))]
        tops = dict.fromkeys(name.partition(".")[0] for name in rest)
        totals = sums(rest)
        count, checksum = (sum(totals[top][part] for top in tops) for part in (0, 1))
        return [_number(self.bodies, [head, *tops]), count, checksum]

    def _module(self, tree: dict[str, Any]) -> str:
        """Adds a module and its submodules to the modules, and returns the digest of the module."""
        module = {child: self._module(content) if isinstance(content, dict) else content for child, content in tree.items()}
        line = _compact(module)
        digest = hashlib.blake2b(line.encode(), digest_size=DIGEST // 2).hexdigest()
        assert self.modules.setdefault(digest, line) == line, "two modules have the same digest: make digests longer"
        return digest

    def files(self) -> tuple[str, str]:
        """The content of `table.json` and of `modules.txt`."""
        # Each architecture, each module and so on has a line, so that the diff shows what a new release of a library changes.
        parts = [
            f'"architectures": {_lines(self.architectures)}',
            f'"aliases": {_lines(self.aliases)}',
            f'"usual_classes": {_lines(self.usual_classes)}',
            f'"ends": [\n{_joined(self.ends)}\n]',
            f'"bodies": [\n{_joined(self.bodies)}\n]',
        ]
        lines = (f"{digest} {line}\n" for digest, line in sorted(self.modules.items()))
        return "{" + ",\n".join(parts) + "}\n", "".join(lines)


def main() -> None:
    """Writes the table, or compares it with the libraries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the files are not what they would be")
    check = parser.parse_args().check
    for path, content in zip((PATH, MODULES), tabulate(), strict=True):
        if not check:
            path.write_text(content)
        elif path.read_text() != content:
            sys.exit(f"{path} is not up to date: run python -m nern.architectures.tabulate")


def tabulate() -> tuple[str, str]:
    """The content of `table.json` and of `modules.txt`. Builds every network without its weights."""
    table = Tabulation()
    known: dict[str, list[tuple[str, Variant]]] = defaultdict(list)
    for name in names():
        described = [(variant, facts_of(variant)) for variant in variants(name)]
        table.add(name, described)
        if name.startswith("torchvision/"):
            for variant, facts in described:
                known[key_of(facts)].append((name, variant))
    table.aliases |= of_torchvision.aliases()
    add_timm(table, [one for model in installed().list_models() if (one := timm_network(model))], known)
    return table.files()


def facts_of(variant: Variant) -> Facts:
    """The facts about a variant. Builds it twice."""
    network, other = (skeleton(partial(variant.build, variant.classes + more)) for more in (0, 1))
    convolutions = {f"{path}.weight": module.groups for path, module in network.named_modules() if isinstance(module, _ConvNd)}
    containers = {path for path, module in network.named_modules() if type(module) is nn.Sequential and _simple(module)}
    return Facts(_shapes(network), _shapes(other), convolutions, containers)


@dataclass(frozen=True)
class OfTimm:
    """A network of timm. `fingerprint` gives what it computes, besides its shapes; it builds the network."""

    model: str
    variant: Variant
    facts: Facts
    fingerprint: Callable[[], str]


def timm_network(model: str) -> OfTimm | None:
    """A network of timm, or None if it does not take square images or does not give one tensor for them."""
    network = skeleton(partial(installed().create_model, model))
    cfg: Any = network.pretrained_cfg
    channels, height, width = cfg["input_size"]
    if height != width or channels != 3:
        return None
    rank = int(any(cfg.get(source) for source in ("hf_hub_id", "url", "file")))
    variant = replace(of_timm(model, classes=network.num_classes or 1000, image_size=height), rank=rank)
    facts = facts_of(variant)
    # A network that is published without a head may get one. If it can't, it gives something else than classes.
    if facts.shapes == facts.others:
        kind = kind_of_outputs(network, height)
        if kind is None:
            return None
        variant = replace(of_timm(model, classes=0, image_size=height), rank=rank, outputs=kind)
    return OfTimm(model, variant, facts, partial(fingerprint_of, model))


def kind_of_outputs(network: nn.Module, size: int) -> dict[str, Kind] | None:
    """The output of a network without classes for images of this size; None if it is not one tensor."""
    try:
        made = network.eval().to("meta")(torch.empty(2, 3, size, size, device="meta"))
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError) as error:
        print(f"{type(network).__name__} is left out: {error}", file=sys.stderr)
        return None
    if not isinstance(made, Tensor) or made.ndim < 2:
        return None
    return {"features": "features"} if made.ndim == 2 else {"maps": "map"}


def add_timm(table: Tabulation, networks: Sequence[OfTimm], others: Mapping[str, Sequence[tuple[str, Variant]]]) -> None:
    """Adds the networks of timm to the table. Of networks that compute the same, all but one are aliases of that one.

    It is the one of torchvision, or else one with published weights, or else the one with the shortest name. `others` has
    the networks of torchvision by `key_of`.
    """
    groups: dict[str, list[OfTimm]] = defaultdict(list)
    for network in sorted(networks, key=lambda one: (-one.variant.rank, len(one.model), one.model)):
        groups[key_of(network.facts)].append(network)
    for key, members in groups.items():
        known: dict[str, str] = {}
        for member in members:
            fingerprint = member.fingerprint() if len(members) > 1 else ""
            same = known.get(fingerprint)
            if same is None:
                same = next((name for name, other in others.get(key, ()) if _same_function(member.variant, other)), None)
            known.setdefault(fingerprint, same or f"timm/{member.model}")
            if same is not None:
                table.aliases[f"timm/{member.model}"] = same
            else:
                table.add(f"timm/{member.model}", [(member.variant, member.facts)])


def key_of(facts: Facts) -> str:
    """The same for networks with the same names and shapes."""
    return hashlib.blake2b(_compact(sorted(facts.shapes.items())).encode()).hexdigest()


def fingerprint_of(model: str) -> str:
    """What a network computes, as far as the classes of its modules and their numbers, names and functions tell."""
    network = skeleton(partial(installed().create_model, model))
    facts = []
    for path, module in network.named_modules():
        if type(module).__name__ in ("Dropout", "DropPath", "Identity"):
            continue
        attributes = {
            key: getattr(value, "__name__", str(value))
            for key, value in vars(module).items()
            if not key.startswith("_") and not any(word in key for word in IRRELEVANT) and not isinstance(value, Tensor | dict)
        }
        facts.append((path, type(module).__name__, sorted(attributes.items())))
    # Some values are printed with their address, which differs from process to process.
    return re.sub(r" at 0x[0-9a-f]+", "", _compact(facts))


def _same_function(one: Variant, other: Variant) -> bool:
    """Whether two networks with the same tensors give the same outputs."""
    generator = torch.Generator().manual_seed(0)
    networks = [variant.build(variant.classes).eval() for variant in (one, other)]
    filled = {}
    for name, tensor in networks[0].state_dict().items():
        noise = torch.rand(tensor.shape, generator=generator)
        scale = (3 / max(1, tensor[0].numel())) ** 0.5 if tensor.ndim > 1 else 0.2
        filled[name] = (noise * 2 - 1) * scale + (1 if name.endswith(("running_var",)) or _norm(name, tensor) else 0)
    for network in networks:
        network.load_state_dict({name: filled[name].to(tensor) for name, tensor in network.state_dict().items()})
    images = torch.randn(1, 3, one.image_size, one.image_size, generator=generator)
    with torch.no_grad():
        outputs = [network(images) for network in networks]
    outputs = [output if isinstance(output, Tensor) else output[0] for output in outputs]
    return bool(torch.allclose(outputs[0], outputs[1], rtol=1e-3, atol=1e-4 * outputs[0].abs().max().item()))


def _norm(name: str, tensor: Tensor) -> bool:
    return tensor.ndim == 1 and name.endswith("weight")


def _heads(classifiers: Mapping[str, int], facts: Facts) -> list[str]:
    """The paths of what may be replaced: the last linear layer, and the sequence of linear layers that it ends."""
    paths = {name.rpartition(".")[0] for name in classifiers}
    if len(paths) != 1 or len(facts.shapes[f"{(path := paths.pop())}.weight"]) != 2:
        return [""]
    parent = path.rpartition(".")[0]
    return [path, parent] if parent in facts.containers and "." not in parent else [path]


def _simple(container: nn.Sequential) -> bool:
    return all(isinstance(child, nn.Linear | nn.ReLU | nn.Dropout | nn.Hardswish) for child in container.children())


def _shapes(network: nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items() if not name.endswith(COUNTER)}


def _number(known: list[Any], one: Any) -> int:
    """The place of `one` in a list, to whose end it is added if it is new."""
    if one not in known:
        known.append(one)
    return known.index(one)


def _lines(fields: Mapping[str, Any]) -> str:
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_compact(value)}" for key, value in fields.items()) + "\n}"


def _joined(items: list[Any]) -> str:
    return ",\n".join(map(_compact, items))


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


if __name__ == "__main__":
    main()
