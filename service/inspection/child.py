"""The inspecting process: reads one untrusted file, writes its tensors to a safetensors file, and answers with facts as JSON.

The standard input of the process is a Unix socket to the service. The process imports the modules that it needs, sends READY,
and waits. The service sends one JSON object with two file descriptors: the uploaded file, open for reading, and an empty file,
open for writing. The process ends when it has answered, or when the service closes the socket.
"""

import base64
import gc
import json
import os
import pickle
import socket
import sys
import traceback
import warnings
import zipfile
from collections.abc import Mapping
from io import BytesIO
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from PIL import Image

from nern import tensorfile
from nern.errors import NoStateDict, UnknownKey
from nern.faults import is_out_of_memory
from nern.layers import StateDict
from nern.state_dicts import Found, aliases, find_state_dict
from service.inspection import checkpoints
from service.inspection.datasets import pictures
from service.inspection.datasets import read as datasets
from service.inspection.datasets.statistics import mean_and_std
from service.inspection.limits import limit, limit_while_waiting
from service.inspection.refusal import Refusal
from service.inspection.tree import Content
from service.inspection.validation import validate, validate_memory

READY = b"."

TOO_DEMANDING = "reading the file needs far more memory than a file of its size should need"

# Larger than any message of the service.
MESSAGE_BYTES = 4096

# Tensors are written in parts of this many elements, to limit the memory.
WRITTEN_ELEMENTS = 2**22


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
    # To show a warning, Python opens the file whose code warned.
    warnings.simplefilter("ignore")
    warm_up()
    # A search for cycles among millions of values takes longer than reading them. The process ends before cycles matter.
    gc.disable()
    limit_while_waiting()


def answer(parent: socket.socket) -> None:
    """Takes one file from the service, inspects it and answers. Returns without an answer if the service closes the socket."""
    message, descriptors, *_ = socket.recv_fds(parent, MESSAGE_BYTES, 2)
    if descriptors:
        parent.sendall(json.dumps(read(*descriptors, **json.loads(message))).encode())


def read(
    source: int, target: int, *, kind: str, seconds: int, max_bytes: int, size: tuple[int, int] | None = None, key: str = ""
) -> dict[str, Any]:
    """Inspects a file within limits, and writes its tensors to another file. Both are given as file descriptors.

    `seconds` limits wall time and processor time. `max_bytes` limits the unpacked arrays of a dataset, and `size` is the height
    and width that its images are brought to. `key` names one of several state_dicts in a checkpoint. Returns the answer: the
    facts, or {"refused": [slug, detail]}.
    """
    with open(source, "rb") as file, open(target, "wb") as output:
        nbytes = file.seek(0, 2)
        room = max_bytes if kind == "dataset" else 2 * nbytes
        limit(memory_bytes=2 * room, output_bytes=4 * nbytes + room, seconds=seconds)
        try:
            if kind == "dataset":
                return inspect_dataset(file, output, max_bytes, size)
            return inspect_checkpoint(file, output, nbytes, key)
        except Refusal as refusal:
            return {"refused": [refusal.slug, refusal.detail]}
        except Exception as error:  # a malformed file can make a reader raise any exception
            if isinstance(error, RecursionError) or is_out_of_memory(error):
                return {"refused": ["too-demanding", TOO_DEMANDING]}
            _log(error)
            if kind == "dataset":
                return {"refused": ["bad-dataset", f"the file is malformed; send {datasets.EXPECTED}"]}
            return {"refused": ["not-a-checkpoint", "the file is malformed; write it again with torch.save or safetensors"]}


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
    inspect_dataset(images, BytesIO(), 2**20, None)
    folders = BytesIO()
    with zipfile.ZipFile(folders, "w") as archive:
        for number, format in enumerate(pictures.FORMATS):
            picture = BytesIO()
            Image.new("RGBA" if format in ("PNG", "WEBP") else "RGB", (2, 2)).save(picture, format)
            archive.writestr(f"{number % 2}/{number}.png", picture.getvalue())
    inspect_dataset(folders, BytesIO(), 2**20, (1, 1))


def inspect_checkpoint(file: BinaryIO, output: BinaryIO, nbytes: int, key: str = "") -> dict[str, Any]:
    """Writes the tensors of a checkpoint file of `nbytes` bytes to `output`. `key` names one of several state_dicts.

    Returns the format, names, dtypes and shapes of the tensors, and what `nern.state_dicts.Found` says. Tensors that are the
    same as another are written once. Raises Refusal.
    """
    format, content = checkpoints.read(file, nbytes)
    try:
        found = find_state_dict(content.tree, key) if content.program is None else _whole(content)
    except NoStateDict as error:
        raise Refusal("not-a-checkpoint", str(error)) from error
    except UnknownKey as error:
        raise Refusal("invalid", str(error)) from error
    validate_memory(found.state_dict, nbytes)
    validate(found, content.program)
    _write({name: tensor for name, tensor in found.state_dict.items() if name not in found.aliases}, output, found.aliases)
    return {
        "format": format,
        "tensors": [[name, tensorfile.NAMES[tensor.dtype], list(tensor.shape)] for name, tensor in found.state_dict.items()],
        "key": found.key,
        "keys": found.keys,
        "first": found.first,
        "notes": [*found.notes, *content.notes],
        "aliases": found.aliases,
        "program": content.program and content.program.to_json(),
        "skeleton": content.skeleton and base64.b64encode(content.skeleton).decode(),
    }


def _whole(content: Content) -> Found:
    """All tensors of a graph."""
    tensors = cast(StateDict, content.tree)
    return Found(tensors, key=".", keys=[], first=True, notes=[], aliases=aliases(tensors), unusable={})


def inspect_dataset(file: BinaryIO, output: BinaryIO, max_bytes: int, size: tuple[int, int] | None) -> dict[str, Any]:
    """Writes the tensors of a dataset file to `output`. Returns the facts: everything in Found, and mean and std of images.

    Raises Refusal.
    """
    found = datasets.read(file, max_bytes=max_bytes, size=size)
    _write(found.tensors, output)
    mean, std = mean_and_std(found.tensors["images"]) if found.kind == "images" else (None, None)
    return {
        "kind": found.kind,
        "tensors": [[name, tensorfile.NAMES[tensor.dtype], list(tensor.shape)] for name, tensor in found.tensors.items()],
        "labels": found.labels,
        "classes": found.classes,
        "class_names": found.class_names,
        "notes": found.notes,
        "mean": mean,
        "std": std,
    }


def _write(tensors: StateDict, output: BinaryIO, aliases: Mapping[str, str] | None = None) -> None:
    entries = ((name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items())
    header, _ = tensorfile.make_header(entries, aliases or {})
    output.write(header)
    for tensor in tensors.values():
        # A part at a time, because `to_bytes` makes a copy.
        for part in tensor.contiguous().flatten().split(WRITTEN_ELEMENTS):
            output.write(tensorfile.to_bytes(part))


if __name__ == "__main__":
    main()
