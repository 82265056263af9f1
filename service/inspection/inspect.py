"""Has a file inspected, and takes nothing but JSON and safetensors back."""

import asyncio
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from nern import tensorfile
from nern.layers import StateDict
from service import problems

log = logging.getLogger(__name__)

MAX_ANSWER = 64 * 2**20


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


async def inspect_checkpoint(path: Path, tensors: Path, *, seconds: int) -> CheckpointFacts:
    """What an uploaded network is. Its tensors are written to `tensors`. Raises Problem."""
    answer = await _run("checkpoint", path, tensors, seconds, 0)
    tensors_found = {
        name: torch.empty(shape, dtype=tensorfile.DTYPES[dtype], device="meta") for name, dtype, shape in answer["tensors"]
    }
    return CheckpointFacts(answer["format"], tensors_found)


async def inspect_dataset(path: Path, tensors: Path, *, seconds: int, max_bytes: int) -> DatasetFacts:
    """What an uploaded dataset is. Its images and labels are written to `tensors`. Raises Problem."""
    answer = await _run("dataset", path, tensors, seconds, max_bytes)
    return DatasetFacts(tuple(answer["shape"]), answer["classes"], tuple(answer["mean"]), tuple(answer["std"]))


# Each takes a core, and memory by the size of its file.
_places = asyncio.Semaphore(2)


async def _run(kind: Literal["checkpoint", "dataset"], source: Path, target: Path, seconds: int, max_bytes: int) -> Any:
    async with _places:
        return await _run_now(kind, source, target, seconds, max_bytes)


async def _run_now(kind: Literal["checkpoint", "dataset"], source: Path, target: Path, seconds: int, max_bytes: int) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "service.inspection.child", kind, source, target, str(seconds), str(max_bytes)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath, "OMP_NUM_THREADS": "1"},
        cwd=source.parent,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), timeout=seconds)
    except TimeoutError:
        raise problems.TooDemanding(f"reading the file took longer than {seconds} seconds") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0 or len(output) > MAX_ANSWER:
        log.warning("inspection of a %s ended with %s: %s", kind, process.returncode, errors.decode(errors="replace")[-2000:])
        raise problems.TooDemanding("the process that read the file exceeded its limits")
    answer = json.loads(output)
    if "refused" in answer:
        slug, detail = answer["refused"]
        raise problems.KINDS[slug](detail)
    return answer
