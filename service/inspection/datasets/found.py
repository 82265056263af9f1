"""What is read out of the file of a dataset, and the refusal of such a file."""

from dataclasses import dataclass, field
from typing import Literal

from nern.layers import StateDict
from service.inspection.refusal import Refusal

Kind = Literal["images", "inputs"]
LabelKind = Literal["classes", "dense classes", "values"]

# What a message shows of a name in the file.
SHOWN_CHARACTERS = 80

# How many names a message lists.
SHOWN_NAMES = 5


@dataclass
class Found:
    """The tensors of a dataset, and what else is known of it.

    For the kind "images", `tensors` has `images` (N x H x W x C): uint8, or float32 from 0 to 1. For the kind "inputs", it has
    `inputs.NAME` for each input (N x anything). If there are labels, it has `labels` (int64, N) for the label kind "classes";
    `targets` (integers, N x anything; -1 where there is no class) for "dense classes"; `targets` (float32, N x anything) for
    "values". `classes` is the largest class plus 1. `notes` are sentences about what was chosen, changed or left out.
    """

    kind: Kind
    tensors: StateDict = field(default_factory=dict)
    labels: LabelKind | None = None
    classes: int | None = None
    class_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def bad(detail: str) -> Refusal:
    """The refusal of a dataset."""
    return Refusal("bad-dataset", detail)


def shown(name: str) -> str:
    """A name of the file for a message or a note: its printable characters, shortened."""
    text = "".join(character if character.isprintable() else "?" for character in name)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def listed(names: list[str]) -> str:
    """Names of the file for a message or a note: the first ones, and how many more there are."""
    text = ", ".join(shown(name) for name in names[:SHOWN_NAMES])
    return text if len(names) <= SHOWN_NAMES else f"{text} and {len(names) - SHOWN_NAMES} more"
