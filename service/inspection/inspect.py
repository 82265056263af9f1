"""The facts that an inspection finds in an uploaded file.

Only JSON and a safetensors file come back from the process that reads the file.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from nern import tensorfile
from nern.layers import StateDict
from service.inspection.pool import Inspectors
from service.inspection.process import Task


@dataclass(frozen=True)
class CheckpointFacts:
    """The facts about a checkpoint. `format` is one of those of `service.inspection.checkpoints`.

    The tensors of `state_dict` are on the meta device: they have names, shapes and dtypes, but no values.
    """

    format: str
    state_dict: StateDict


@dataclass(frozen=True)
class DatasetFacts:
    """The facts about a dataset. `shape` is N x H x W x C. `classes` is the largest label plus 1, or None without labels.

    `mean` and `std` are those of each channel, for pixels scaled to 0..1.
    """

    shape: tuple[int, int, int, int]
    classes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


async def inspect_checkpoint(inspectors: Inspectors, path: Path, tensors: Path, *, seconds: int) -> CheckpointFacts:
    """Inspects the checkpoint file `path` and writes its tensors to the file `tensors`.

    Raises Problem, also if the inspection takes longer than `seconds`.
    """
    answer = await inspectors.read(Task("checkpoint", path, tensors, seconds))
    tensors_found = {
        name: torch.empty(shape, dtype=tensorfile.DTYPES[dtype], device="meta") for name, dtype, shape in answer["tensors"]
    }
    return CheckpointFacts(answer["format"], tensors_found)


async def inspect_dataset(inspectors: Inspectors, path: Path, tensors: Path, *, seconds: int, max_bytes: int) -> DatasetFacts:
    """Inspects the dataset file `path` and writes its images and labels to the file `tensors`.

    Raises Problem, also if the inspection takes longer than `seconds` or the unpacked arrays have more than `max_bytes` bytes.
    """
    answer = await inspectors.read(Task("dataset", path, tensors, seconds, max_bytes))
    return DatasetFacts(tuple(answer["shape"]), answer["classes"], tuple(answer["mean"]), tuple(answer["std"]))
