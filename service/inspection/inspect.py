"""The facts that an inspection finds in an uploaded file.

Only JSON and a safetensors file come back from the process that reads the file.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nern import tensorfile
from nern.layers import StateDict
from service import problems
from service.inspection.datasets.found import Kind, LabelKind
from service.inspection.pool import Inspectors
from service.inspection.process import Task
from service.store.tables import Json


@dataclass(frozen=True)
class CheckpointFacts:
    """The facts about a checkpoint.

    format: one of those of `service.inspection.checkpoints`.
    state_dict: the tensors, on the meta device: they have names, shapes and dtypes, but no values.
    key, keys, first, notes, aliases: see `nern.state_dicts.Found`.
    program, skeleton: see `service.inspection.tree.Content`. The program is JSON.
    """

    format: str
    state_dict: StateDict
    key: str
    keys: list[str]
    first: bool
    notes: list[str]
    aliases: dict[str, str]
    program: Json | None = None
    skeleton: bytes | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "CheckpointFacts":
        """The facts in the answer of an inspecting process."""
        tensors = {
            name: torch.empty(shape, dtype=tensorfile.DTYPES[dtype], device="meta") for name, dtype, shape in answer["tensors"]
        }
        skeleton = answer["skeleton"] and base64.b64decode(answer["skeleton"])
        others = {name: value for name, value in answer.items() if name not in ("tensors", "skeleton")}
        return cls(state_dict=tensors, skeleton=skeleton, **others)


@dataclass(frozen=True)
class DatasetFacts:
    """The facts about a dataset; `service.inspection.datasets.found.Found` explains them.

    `tensors` has the dtype, in the notation of safetensors, and the shape of each tensor by name. `mean` and `std` are those of
    each channel, for pixels scaled to 0..1; None for inputs.
    """

    kind: Kind
    tensors: dict[str, tuple[str, list[int]]]
    labels: LabelKind | None
    classes: int | None
    class_names: list[str] | None
    notes: list[str]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


async def inspect_checkpoint(
    inspectors: Inspectors, path: Path, tensors: Path, *, seconds: int, key: str = ""
) -> CheckpointFacts:
    """Inspects the checkpoint file `path` and writes its tensors to the file `tensors`. `key` names one of several state_dicts.

    Raises Problem, also if the inspection takes longer than `seconds`.
    """
    try:
        return CheckpointFacts.of(await inspectors.read(Task("checkpoint", path, tensors, seconds, key=key)))
    except problems.Invalid as problem:
        errors = [{"pointer": "query:key", "detail": problem.detail}]
        raise problems.Invalid(problem.detail, errors=errors) from None


async def inspect_dataset(
    inspectors: Inspectors, path: Path, tensors: Path, *, seconds: int, max_bytes: int, size: tuple[int, int] | None = None
) -> DatasetFacts:
    """Inspects the dataset file `path` and writes its tensors to the file `tensors`.

    `size` is the height and width that the images of a zip archive are brought to. Raises Problem, also if the inspection takes
    longer than `seconds` or the unpacked arrays have more than `max_bytes` bytes.
    """
    return dataset_facts(await inspectors.read(Task("dataset", path, tensors, seconds, max_bytes, size)))


def dataset_facts(answer: Any) -> DatasetFacts:
    """The facts in the answer of an inspecting process."""
    mean, std = answer["mean"], answer["std"]
    return DatasetFacts(
        kind=answer["kind"],
        tensors={name: (dtype, shape) for name, dtype, shape in answer["tensors"]},
        labels=answer["labels"],
        classes=answer["classes"],
        class_names=answer["class_names"],
        notes=answer["notes"],
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
    )
