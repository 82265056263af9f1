"""The facts that an inspection finds in an uploaded file.

Only JSON and a safetensors file come back from the process that reads the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nern import tensorfile
from nern.layers import StateDict
from service import problems
from service.inspection.pool import Inspectors
from service.inspection.process import Task


@dataclass(frozen=True)
class CheckpointFacts:
    """The facts about a checkpoint.

    format: safetensors, torch-zip or torch-legacy.
    state_dict: the tensors, on the meta device: they have names, shapes and dtypes, but no values.
    key, keys, first, notes, aliases: see `nern.state_dicts.Found`.
    """

    format: str
    state_dict: StateDict
    key: str
    keys: list[str]
    first: bool
    notes: list[str]
    aliases: dict[str, str]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "CheckpointFacts":
        """The facts in the answer of an inspecting process."""
        tensors = {
            name: torch.empty(shape, dtype=tensorfile.DTYPES[dtype], device="meta") for name, dtype, shape in answer["tensors"]
        }
        return cls(state_dict=tensors, **{name: value for name, value in answer.items() if name != "tensors"})


@dataclass(frozen=True)
class DatasetFacts:
    """The facts about a dataset. `shape` is N x H x W x C. `classes` is the largest label plus 1, or None without labels.

    `mean` and `std` are those of each channel, for pixels scaled to 0..1.
    """

    shape: tuple[int, int, int, int]
    classes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


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


async def inspect_dataset(inspectors: Inspectors, path: Path, tensors: Path, *, seconds: int, max_bytes: int) -> DatasetFacts:
    """Inspects the dataset file `path` and writes its images and labels to the file `tensors`.

    Raises Problem, also if the inspection takes longer than `seconds` or the unpacked arrays have more than `max_bytes` bytes.
    """
    answer = await inspectors.read(Task("dataset", path, tensors, seconds, max_bytes))
    return DatasetFacts(tuple(answer["shape"]), answer["classes"], tuple(answer["mean"]), tuple(answer["std"]))
