"""What is found in a file. Nothing but JSON and safetensors comes back from the process that reads it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from nern import tensorfile
from nern.layers import StateDict
from service.inspection.pool import Inspectors
from service.inspection.process import Task


@dataclass(frozen=True)
class CheckpointFacts:
    """`state_dict` has names, shapes and dtypes only: its tensors are on the meta device."""

    format: str
    state_dict: StateDict


@dataclass(frozen=True)
class DatasetFacts:
    """`shape` is N x H x W x C; mean and std are of the pixels scaled to 0..1, a value for each channel."""

    shape: tuple[int, int, int, int]
    classes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


async def inspect_checkpoint(inspectors: Inspectors, path: Path, tensors: Path, *, seconds: int) -> CheckpointFacts:
    """What an uploaded network is. Its tensors are written to `tensors`. Raises Problem."""
    answer = await inspectors.read(Task("checkpoint", path, tensors, seconds))
    tensors_found = {
        name: torch.empty(shape, dtype=tensorfile.DTYPES[dtype], device="meta") for name, dtype, shape in answer["tensors"]
    }
    return CheckpointFacts(answer["format"], tensors_found)


async def inspect_dataset(inspectors: Inspectors, path: Path, tensors: Path, *, seconds: int, max_bytes: int) -> DatasetFacts:
    """What an uploaded dataset is. Its images and labels are written to `tensors`. Raises Problem."""
    answer = await inspectors.read(Task("dataset", path, tensors, seconds, max_bytes))
    return DatasetFacts(tuple(answer["shape"]), answer["classes"], tuple(answer["mean"]), tuple(answer["std"]))
