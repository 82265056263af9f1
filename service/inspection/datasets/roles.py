"""Which array of a file is what, by its name.

A name is a role (`images`, `labels`, …), alone or with the split of the data before or after it (`x_train`, `test_labels`).
Letter case does not matter.
"""

import re
from dataclasses import dataclass, field
from itertools import product

# The first split of these that the file has is taken. The names of a file without splits come first.
SPLITS = {
    "": "", "train": "train", "training": "train", "test": "test", "testing": "test", "val": "val", "valid": "val",
    "validation": "val",
}  # fmt: skip

# Names of arrays that hold images, and names of arrays that may hold anything.
IMAGES = ("images", "image", "imgs", "img")
SAMPLES = ("x", "data", "samples", "features")
LABELS = ("labels", "label", "targets", "target", "y")
CLASS_NAMES = ("class_names", "classnames", "label_names", "classes", "categories")

# An array may have any name behind this prefix: it is the input of that name.
INPUTS = "inputs"
INPUT_NAME = re.compile(r"inputs[./](.+)", re.DOTALL)

# numpy.savez names arrays without a name like this.
NUMBERED = re.compile(r"arr_\d")

# Names of labels that may hold numbers which are no classes.
VALUES = ("targets", "target")


@dataclass(frozen=True)
class Roles:
    """The names of arrays by their role: `inputs` maps the name of each input to the name of its array.

    If there are no inputs, `images` is the array of images. `anything` tells that its name does not promise images. Of
    `labels`, the first array that fits is taken. `split` is the split that was taken, or "" if the names tell none.
    """

    images: str | None = None
    anything: bool = False
    inputs: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    class_names: str | None = None
    split: str = ""


def assign(names: list[str]) -> Roles | None:
    """The roles of arrays, or None if no name tells what to learn from."""
    found: dict[tuple[str, str], str] = {}
    for name in names:
        found.setdefault(_parse(name), name)
    class_names = next((found["", role] for role in CLASS_NAMES if ("", role) in found), None)
    if inputs := _inputs(names):
        return Roles(inputs=inputs, labels=_labels(found, ""), class_names=class_names)
    for split, role in product(dict.fromkeys(SPLITS.values()), IMAGES + SAMPLES):
        if name := found.get((split, role), ""):
            labels = _labels(found, split)
            return Roles(name, role in SAMPLES, labels=labels, class_names=class_names, split=split)
    numbered = sorted(name for name in names if NUMBERED.fullmatch(name))
    if numbered or (len(names) == 1 and _parse(names[0])[1] not in LABELS):
        first, *others = numbered or names
        return Roles(first, True, labels=others, class_names=class_names)
    return None


def is_input(name: str) -> bool:
    """Whether an array is an input by its name."""
    return name.lower() == INPUTS or INPUT_NAME.fullmatch(name) is not None


def split_of(name: str) -> str:
    """The split that a name tells, or "" if it tells none."""
    return _parse(name)[0]


def may_be_values(name: str) -> bool:
    """Whether whole numbers in a floating-point array of this name are values and not classes."""
    return _parse(name)[1] in VALUES


def _inputs(names: list[str]) -> dict[str, str]:
    inputs = {}
    for name in names:
        if match := INPUT_NAME.fullmatch(name):
            inputs[match[1]] = name
        elif name.lower() == INPUTS:
            inputs[INPUTS] = name
    return inputs


def _labels(found: dict[tuple[str, str], str], split: str) -> list[str]:
    return [found[split, role] for role in LABELS if (split, role) in found]


def _parse(name: str) -> tuple[str, str]:
    """The split ("" for none) and the rest of a name."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if words in CLASS_NAMES:
        return "", words
    match words.split("_"):
        case [first, second] if first in SPLITS:
            return SPLITS[first], second
        case [first, second] if second in SPLITS:
            return SPLITS[second], first
    return "", words
