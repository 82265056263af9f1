"""Pieces of pickles, and the files around them."""

import struct
import zipfile
from io import BytesIO

# A tensor over the storage that the opcodes before it have pushed.
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    """Pushes text."""
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def number(value: int) -> bytes:
    """Pushes an integer."""
    return f"I{value}\n".encode()


def call(name: str, *arguments: bytes) -> bytes:
    """Pushes the result of a function, by module and name with a dot between, from opcodes that push the arguments."""
    module, _, function = name.rpartition(".")
    return f"c{module}\n{function}\n(".encode() + b"".join(arguments) + b"tR"


def pickled(opcodes: bytes) -> bytes:
    """A pickle of one value."""
    return b"\x80\x02" + opcodes + b"."


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def torch_zip(opcodes: bytes, **storages: bytes) -> bytes:
    """A file of torch.save whose pickle has these opcodes. The names of storages follow an underscore."""
    members = {"archive/data.pkl": pickled(opcodes), "archive/byteorder": b"little", "archive/version": b"3\n"}
    return zipped(members | {f"archive/data/{name[1:]}": content for name, content in storages.items()})


def storage(name: str, numel: int, kind: str = "FloatStorage") -> bytes:
    """Pushes a storage of an archive."""
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(name) + text("cpu") + number(numel) + b"tQ"


def tensor(source: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """Pushes a tensor over a storage."""
    shape, steps = (b"(" + b"".join(map(number, values)) + b"t" for values in (size, stride))
    return REBUILD + b"(" + source + number(offset) + shape + steps + b"\x89}tR"


def named(opcodes: bytes, name: str = "conv.weight") -> bytes:
    """Pushes a dict with one entry."""
    return b"}" + text(name) + opcodes + b"s"


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file."""
    return struct.pack("<Q", len(header)) + header + data
