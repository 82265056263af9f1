"""Files that are one checkpoint together, told by their names.

Libraries name the shards of a checkpoint model-00001-of-00003.safetensors and so on, and their index
model.safetensors.index.json. An ONNX file, model.onnx, may have its tensors in a file model.onnx.data.
"""

import re
from collections.abc import Iterable

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.\w+)")
ONNX = re.compile(r"(?P<stem>.+)\.onnx")
SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"

# torch.onnx.export and Hugging Face's optimum call the file with the tensors of an ONNX file so.
ONNX_DATA = (".onnx.data", ".onnx_data")

HOW_TO_SEND = (
    "send all shards and the index together: several parts `file` in one form, or one tar archive of them "
    "(tar cf model.tar *.safetensors *.index.json)"
)


def lone_part(filename: str) -> str | None:
    """Why a file of this name can't be a checkpoint alone, or None: it is one of several shards, or their index."""
    if filename.endswith(".index.json"):
        return f"{filename!r} is the index of a checkpoint in several files and holds no weights; {HOW_TO_SEND}"
    if filename.endswith(ONNX_DATA):
        return f"{filename!r} has the tensors of an ONNX file; send both files together, as two parts `file` in one form"
    if not (found := SHARD.fullmatch(filename)) or int(found["total"]) < 2:
        return None
    part = f"{filename!r} is one of {int(found['total'])} shards of a checkpoint"
    if found["suffix"] == SUFFIX:
        return f"{part}; {HOW_TO_SEND}"
    return f"{part}, and only shards in the safetensors format can be put together; save the model as safetensors"


def archive_name(filenames: Iterable[str]) -> str:
    """A name for an archive of files with these names."""
    stems = {found["stem"] for name in filenames if (found := SHARD.fullmatch(name) or ONNX.fullmatch(name))}
    return f"{stems.pop() if len(stems) == 1 else 'shards'}.tar"
