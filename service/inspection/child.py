"""The inspecting process: reads one untrusted file, writes its tensors to a safetensors file, and answers with facts as JSON.

The standard input of the process is a Unix socket to the service. The process imports the modules that it needs, sends READY,
and waits. The service sends one JSON object with two file descriptors: the uploaded file, open for reading, and an empty file,
open for writing. The process ends when it has answered, or when the service closes the socket.
"""

import gc
import json
import os
import pickle
import socket
import sys
import traceback
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import torch

from nern import tensorfile
from nern.errors import NoStateDict
from nern.layers import StateDict
from nern.state_dicts import find_state_dict
from service.inspection import checkpoints, datasets
from service.inspection.limits import limit, limit_while_waiting
from service.inspection.refusal import Refusal
from service.inspection.validation import validate, validate_memory

READY = b"."

# Larger than any message of the service.
MESSAGE_BYTES = 4096

# Means and standard deviations are computed for this many images at a time, to limit the memory.
STATISTICS_IMAGES = 1024


def main() -> None:
    """Waits for one file, inspects it and answers."""
    prepare()
    with socket.socket(fileno=0) as parent:
        parent.sendall(READY)
        answer(parent)
    # A regular exit of a process with torch takes longer than reading a small file.
    os._exit(0)


def prepare() -> None:
    """Imports everything, and limits the process for the time in which it waits."""
    torch.set_num_threads(1)
    warm_up()
    # A search for cycles among millions of values takes longer than reading them. The process ends before cycles matter.
    gc.disable()
    limit_while_waiting()


def answer(parent: socket.socket) -> None:
    """Takes one file from the service, inspects it and answers. Returns without an answer if the service closes the socket."""
    message, descriptors, *_ = socket.recv_fds(parent, MESSAGE_BYTES, 2)
    if descriptors:
        parent.sendall(json.dumps(read(*descriptors, **json.loads(message))).encode())


def read(source: int, target: int, *, kind: str, seconds: int, max_bytes: int) -> dict[str, Any]:
    """Inspects a file within limits, and writes its tensors to another file. Both are given as file descriptors.

    `seconds` limits wall time and processor time. `max_bytes` limits the unpacked arrays of a dataset. Returns the answer: the
    facts, or {"refused": [slug, detail]}.
    """
    with open(source, "rb") as file, open(target, "wb") as output:
        nbytes = file.seek(0, 2)
        room = max_bytes if kind == "dataset" else 2 * nbytes
        limit(memory_bytes=2 * room, output_bytes=4 * nbytes + room, seconds=seconds)
        try:
            return inspect_dataset(file, output, max_bytes) if kind == "dataset" else inspect_checkpoint(file, output, nbytes)
        except Refusal as refusal:
            return {"refused": [refusal.slug, refusal.detail]}
        except (MemoryError, RecursionError):
            return {"refused": ["too-demanding", "reading the file needs far more memory than a file of its size should need"]}
        except Exception as error:  # a malformed file can make a reader raise any exception
            _log(error)
            slug = "bad-dataset" if kind == "dataset" else "not-a-checkpoint"
            return {"refused": [slug, "the file is malformed; write it again with torch.save, safetensors or numpy.savez"]}


def _log(error: Exception) -> None:
    """Writes an error and where it was raised to standard error. A traceback would open files to show their lines."""
    places = [f"{frame.f_code.co_filename}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)]
    print(f"{type(error).__name__}: {error}; {', '.join(places)}", file=sys.stderr)


def warm_up() -> None:
    """Inspects a small file of each format, so that every module is imported before the limits forbid to open files."""
    weight = torch.zeros(1, 1, 3, 3)
    network = {"weight": weight, "bias": torch.zeros(1).to_sparse()}
    files = [BytesIO() for _ in range(4)]
    torch.save(network, files[0])
    torch.save(network, files[1], _use_new_zipfile_serialization=False)
    np.savez(files[2], weight=weight.numpy(), others=np.array({"epoch": 1}, dtype=object))
    pickle.dump({"weight": weight.numpy(), "bias": np.float32(0)}, files[3])
    for file in files:
        inspect_checkpoint(file, BytesIO(), len(file.getvalue()))
    images = BytesIO()
    np.savez_compressed(images, images=np.zeros((1, 1, 1, 1), np.uint8), labels=np.zeros(1, np.int64))
    inspect_dataset(images, BytesIO(), 2**20)


def inspect_checkpoint(file: BinaryIO, output: BinaryIO, nbytes: int) -> dict[str, Any]:
    """Writes the tensors of a checkpoint file of `nbytes` bytes to `output`. Returns format, names, dtypes and shapes, and
    notes.

    Raises Refusal.
    """
    format, content = checkpoints.read(file, nbytes)
    try:
        state_dict = find_state_dict(content.tree)
    except NoStateDict as error:
        raise Refusal("not-a-checkpoint", str(error)) from error
    validate_memory(state_dict, nbytes)
    validate(state_dict)
    _write(state_dict, output)
    tensors = [[name, tensorfile.NAMES[tensor.dtype], list(tensor.shape)] for name, tensor in state_dict.items()]
    return {"format": format, "tensors": tensors, "notes": content.notes}


def inspect_dataset(file: BinaryIO, output: BinaryIO, max_bytes: int) -> dict[str, Any]:
    """Writes the images and labels of a dataset file to `output`. Returns shape, number of classes, mean and std.

    Raises Refusal.
    """
    tensors = datasets.read(file, max_bytes=max_bytes)
    _write(tensors, output)
    labels, pixels = tensors.get("labels"), tensors["images"]
    sums = [torch.zeros(pixels.shape[3], dtype=torch.float64) for _ in range(2)]
    for part in pixels.split(STATISTICS_IMAGES):
        values = part.flatten(0, 2).double() / 255
        sums = [sums[0] + values.sum(0), sums[1] + values.square().sum(0)]
    mean, square = (total / (pixels.numel() // pixels.shape[3]) for total in sums)
    return {
        "shape": list(pixels.shape),
        "classes": None if labels is None else int(labels.max()) + 1,
        "mean": mean.tolist(),
        "std": (square - mean.square()).clamp_min(1e-12).sqrt().tolist(),
    }


def _write(tensors: StateDict, output: BinaryIO) -> None:
    header, _ = tensorfile.make_header(((name, t.dtype, tuple(t.shape)) for name, t in tensors.items()), {})
    output.write(header)
    for tensor in tensors.values():
        output.write(tensorfile.to_bytes(tensor))


if __name__ == "__main__":
    main()
