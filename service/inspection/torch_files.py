"""Reads checkpoints that torch.save wrote, in its zip format and its legacy format.

Pickles are read by the weights-only unpickler of torch and by nothing else.
"""

import pickle
import re
import zipfile
from typing import BinaryIO, Literal

import torch

from nern.layers import StateDict
from nern.state_dicts import Found, find_state_dict
from service.inspection.refusal import Refusal

Format = Literal["torch-zip", "torch-legacy"]

MAX_MEMBERS = 100_000

ADVICE = "save the weights alone: torch.save(model.state_dict(), path), or a safetensors file"


def sniff(start: bytes) -> Format | None:
    """The format of a file that begins with the bytes `start`, or None if torch.save did not write it."""
    if start.startswith(b"PK\x03\x04"):
        return "torch-zip"
    return "torch-legacy" if start.startswith(pickle.PROTO) else None


def read(file: BinaryIO, format: Format, nbytes: int, key: str = "") -> Found:
    """The state_dict in a file of `nbytes` bytes that torch.save wrote. Raises Refusal, NoStateDict and UnknownKey."""
    if format == "torch-zip":
        _validate_archive(file, nbytes)
    file.seek(0)
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused_pickle(error) from error
    except EOFError as error:
        raise Refusal("truncated-file", "the file ends too early; upload the file again") from error
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if "EOF" in str(error) or "corrupted" in str(error):
            raise Refusal("truncated-file", "the file ends too early; upload the file again") from error
        raise Refusal("not-a-checkpoint", f"torch can't read the file; {ADVICE}") from error
    found = find_state_dict(loaded, key)
    _validate_storages(found.state_dict, nbytes)
    return found


def _validate_archive(file: BinaryIO, nbytes: int) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Refusal(
            "truncated-file", "the directory at the end of the zip archive is missing; upload the file again"
        ) from error
    names = [member.filename.partition("/")[2] for member in members]
    if any(name == "constants.pkl" or name.startswith("code/") for name in names):
        raise Refusal("unsupported-archive", f"the file is a TorchScript archive, which holds a program; {ADVICE}")
    if any("serialized_exported_program" in name or name.startswith("models/") for name in names):
        raise Refusal("unsupported-archive", f"the file is a torch.export archive, which holds a program; {ADVICE}")
    if "data.pkl" not in names:
        raise Refusal("not-a-checkpoint", f"the file is a zip archive, but not one of torch.save; {ADVICE}")
    if len(members) > MAX_MEMBERS or len(set(names)) != len(names):
        raise Refusal("not-a-checkpoint", f"the archive has more than {MAX_MEMBERS} members, or two members of the same name")
    if sum(member.file_size for member in members) > nbytes:
        raise Refusal("not-a-checkpoint", f"the members of the archive are compressed, which torch.save never does; {ADVICE}")


def _validate_storages(state_dict: StateDict, nbytes: int) -> None:
    # A tensor with a stride of 0 repeats its storage, so it can be far larger than the file.
    for name, tensor in state_dict.items():
        if tensor.layout is torch.strided and tensor.nbytes > tensor.untyped_storage().nbytes():
            raise Refusal("unsupported-tensor", f"tensor {name!r} is larger than its storage; save a contiguous copy of it")
    strided = [tensor for tensor in state_dict.values() if tensor.layout is torch.strided]
    if sum(tensor.numel() * tensor.element_size() for tensor in strided) > 4 * nbytes + 2**20:
        raise Refusal("too-demanding", "the tensors are much larger than the file; save contiguous copies of them")


def _refused_pickle(error: pickle.UnpicklingError) -> Refusal:
    if found := re.search(r"GLOBAL (\S+)", str(error)):
        return Refusal("forbidden-pickle", f"the pickle in the file needs {found[1]}, which is code and not data; {ADVICE}")
    return Refusal("forbidden-pickle", f"the pickle in the file does more than hold tensors, or is damaged; {ADVICE}")
