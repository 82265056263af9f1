"""Reads files that hold a network as a graph: ONNX files, and programs of torch.export (`.pt2`)."""

from collections.abc import Iterable, Mapping
from typing import BinaryIO

from nern.errors import BadProgram
from nern.graph import exported, onnx_model
from nern.layers import StateDict
from service.inspection.archives import Archive
from service.inspection.refusal import Refusal
from service.inspection.tars import Window, listed
from service.inspection.torch_files import read_archive
from service.inspection.tree import Content

ONNX_SUFFIX = ".onnx"


def is_onnx(start: bytes) -> bool:
    """Whether a file that begins with the bytes `start` may be an ONNX file."""
    return onnx_model.sniff(start)


def is_exported(names: Iterable[str]) -> bool:
    """Whether an archive with members of these names is one of torch.export."""
    inside = {name.partition("/")[2] for name in names} | set(names)
    return any(name.startswith("models/") or name == "serialized_exported_program.json" for name in inside)


def read_onnx(file: BinaryIO, nbytes: int) -> Content:
    """The content of an ONNX file of `nbytes` bytes. Raises Refusal."""
    file.seek(0)
    return _read_onnx(file.read(nbytes), {})


def read_onnx_files(members: Mapping[str, Window]) -> Content:
    """The content of an ONNX file and of the files in which it keeps tensors. Raises Refusal."""
    first, *others = (name for name in members if name.endswith(ONNX_SUFFIX))
    if others:
        raise Refusal("bad-shards", f"there are several ONNX files: {listed([first, *others])}; send one network")
    content = {name: member.read(member.size) for name, member in members.items()}
    return _read_onnx(content.pop(first), content)


def read_exported(file: BinaryIO) -> Content:
    """The content of an archive of torch.export. Raises Refusal."""
    file.seek(0)
    try:
        read = exported.read(file, _read_pickled)
    except BadProgram as error:
        raise Refusal("unsupported-graph", str(error)) from error
    return Content(read.state_dict, list(read.notes), read.program)


def _read_onnx(content: bytes, files: Mapping[str, bytes]) -> Content:
    try:
        model = onnx_model.read(content, files)
    except BadProgram as error:
        raise Refusal("unsupported-graph", str(error)) from error
    return Content(model.state_dict, list(model.notes), model.program, model.skeleton)


def _read_pickled(file: BinaryIO) -> StateDict:
    """The tensors in a file of torch.save that older releases of torch put into the archive of a program."""
    nbytes = file.seek(0, 2)
    _, content = read_archive(Archive(file, nbytes), nbytes)
    if not isinstance(content.tree, dict):
        raise BadProgram("the tensors of the program can't be read")
    return content.tree
