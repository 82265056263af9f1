"""Archives that were made to do harm, and files that are something else."""

import asyncio
import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from service import problems
from service.inspection.datasets import zips
from service.inspection.inspect import inspect_dataset
from service.inspection.pool import Inspectors
from tests.support.datasets import IMAGES, LABELS, archive, check, picture
from tests.support.networks import npz, saved
from tests.support.waiting import DEADLINE_SECONDS

PNG = picture()
NPY = BytesIO()
np.save(NPY, IMAGES)


def refused(content: bytes, detail: str, max_bytes: int = 10**7) -> None:
    with pytest.raises(problems.BadDataset, match=detail):
        check(content, max_bytes=max_bytes)


def special(name: str, *, mode: int = 0, content: bytes = PNG) -> bytes:
    """An archive with one member more, whose name and file mode are unusual."""
    buffer = BytesIO(archive({"a/1.png": PNG, "b/1.png": PNG}))
    with zipfile.ZipFile(buffer, "a") as file:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        file.writestr(member, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../1.png", "a/../../1.png", "/etc/1.png", "..\\1.png", "a/..", "\\1.png"])
def test_paths_that_lead_out_of_the_archive_are_refused(name: str) -> None:
    refused(special(name), "leads out of the archive")
    refused(special(name).replace(b"a/1.png", b"a/1.npy"), "leads out of the archive")


def test_symbolic_links_are_refused() -> None:
    refused(special("a/2.png", mode=stat.S_IFLNK | 0o777, content=b"/etc/passwd"), "`a/2.png` is a symbolic link")


def test_encrypted_members_are_refused() -> None:
    content = bytearray(archive({"a/1.png": PNG, "b/1.png": PNG}))
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(signature) + offset] |= 1
    refused(bytes(content), "`a/1.png` is encrypted; write the archive without a password")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_occur_twice_are_refused() -> None:
    refused(special("a/1.png"), "holds `a/1.png` twice")


def with_members(count: int, *, zip64: bool) -> bytes:
    """An archive whose directory names `count` empty files."""
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    directory = entry * count
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, min(count, 0xFFFF), min(count, 0xFFFF), len(directory), 0, 0)
    if zip64:
        end_64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), 0)
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(directory), 1)
        end = end_64 + locator + end.replace(struct.pack("<L", len(directory)), b"\xff\xff\xff\xff")
    return directory + end


@pytest.mark.parametrize("zip64", [False, True])
def test_an_archive_of_a_million_members_is_refused_before_they_are_listed(
    monkeypatch: pytest.MonkeyPatch, zip64: bool
) -> None:
    def listed(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(zipfile, "ZipFile", listed)
    refused(with_members(10**6, zip64=zip64), "more than 200000 members")


def test_an_archive_with_a_huge_directory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "MAX_DIRECTORY_BYTES", 100)
    refused(archive({"a/1.png": PNG, "b/1.png": PNG}), "members")


def test_arrays_that_unpack_to_too_much_are_refused() -> None:
    buffer = BytesIO()
    np.savez_compressed(buffer, images=np.zeros((1000, 100, 100, 3), np.uint8))
    assert len(buffer.getvalue()) < 100_000
    refused(buffer.getvalue(), "more than 10000000 bytes unpacked")
    refused(npz(images=np.zeros((1, 8, 8), np.float16) + 0.3), "more than 200 bytes as they are stored", max_bytes=200)


def test_arrays_that_are_not_needed_may_be_large() -> None:
    assert len(check(npz(images=IMAGES, extra=np.zeros(10**6)), max_bytes=10**4).images) == 4


@pytest.mark.parametrize(
    ("shape", "detail"),
    [("(9999, 8, 6, 3)", "header announces 1439856"),
     ("(9999999999, 8, 6, 3)", "more than 10000000 bytes"), ("(4, 8, 6, 2)", "576 bytes of data, but its header ann"),
     ("(-4, -8, 6, 3)", "header announces"), ("(4, 8, 6, 3.)", "no array"), ("1", "no array"), ("(4, 8, 6, 3", "no array")],
)  # fmt: skip
def test_headers_that_lie_are_refused(shape: str, detail: str) -> None:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.encode() + IMAGES.tobytes()
    refused(content, detail)
    refused(archive({"images.npy": content}), detail)


@pytest.mark.parametrize("content", [b"nothing", b"\x93NUMPY\x01\x00\x05\x00{", b"\x93NUMPY\x09\x09", b""])
def test_members_that_are_no_arrays_are_refused(content: bytes) -> None:
    refused(archive({"images.npy": content}), "`images` is no array|cut off")


@pytest.mark.parametrize("offset", [1, 10, 46, 60])
def test_damaged_archives_are_refused(offset: int) -> None:
    content = bytearray(npz(images=IMAGES, labels=LABELS))
    for start in (0, content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")):
        damaged = bytearray(content)
        damaged[start + min(offset, 20)] ^= 0xFF
        damaged[len(content) // 3] ^= 0xFF
        refused(bytes(damaged), "upload it again|write it again|no array|bytes of data|no format")


def test_unknown_compression_is_refused() -> None:
    content = bytearray(npz(images=IMAGES))
    content[content.index(b"PK\x01\x02") + 10] = 99
    refused(bytes(content), "zip archive can't be read")


def tar(content: bytes) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        member = tarfile.TarInfo("a/1.png")
        member.size = len(content)
        file.addfile(member, BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (tar(PNG), "a tar archive; unpack it, and send the folder as a zip archive"),
        (gzip.compress(tar(PNG)), r"compressed with gzip \(perhaps a .tar.gz\); unpack it"),
        (bz2.compress(PNG), "bzip2"),
        (lzma.compress(PNG), "xz"),
        (b"\x28\xb5\x2f\xfd" + PNG, "zstd"),
        (b"7z\xbc\xaf\x27\x1c" + PNG, "7z archive"),
        (b"Rar!\x1a\x07\x01\x00" + PNG, "RAR"),
        (b"\x89HDF\r\n\x1a\n" + PNG, "an HDF5 file; read it with h5py and write it with numpy.savez"),
        (b"MATLAB 5.0 MAT-file", "scipy.io.loadmat"),
        (b"PAR1" + PNG, "Parquet"),
        (b"ARROW1\x00\x00", "Arrow"),
        (b"\x00\x00\x08\x03\x00\x00\xea\x60", "IDX"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (PNG, "a single image; send a zip of folders of images"),
        (picture(format="JPEG"), "a single image"),
        (picture(format="GIF"), "a single image"),
        (saved([1], legacy=True), "a pickle, which could run code"),
        (saved([1]), "written by torch.save, as a pickle"),
        (b"hello", "in no format of a dataset; send an .npz, .npy or .safetensors file, or a zip"),
        (b"PK", "zip archive can't be read"),
    ],
)  # fmt: skip
def test_files_that_are_something_else_are_called_by_their_name(content: bytes, detail: str) -> None:
    refused(content, detail)


def test_size_is_for_archives_of_images() -> None:
    for content in (npz(images=IMAGES), NPY.getvalue()):
        with pytest.raises(problems.BadDataset, match="resize images before you write arrays of them"):
            check(content, size=(8, 8))


def test_every_kind_of_file_is_read_in_the_confined_process(tmp_path: Path) -> None:
    pictures = {f"a/{format}{mode[0]}": picture(mode=mode, format=format) for format, mode in (
        ("PNG", "RGB"), ("PNG", "P"), ("PNG", "I;16"), ("PNG", "RGBA"), ("JPEG", "CMYK"), ("BMP", "RGB"), ("GIF", "P"),
        ("WEBP", "RGBA"), ("MPO", "RGB"))}  # fmt: skip
    files = {
        "folders": archive({f"{name}.png": content for name, content in pictures.items()} | {"b/1.png": picture(9, 9)}),
        "npz": npz(images=IMAGES / 255, labels=np.array(["a", "b", "c", "a"])),
        "inputs": npz(inputs=IMAGES / 7, targets=IMAGES[..., 0]),
    }

    async def read(name: str) -> object:
        (tmp_path / name).write_bytes(files[name])
        return await inspect_dataset(
            Inspectors(0), tmp_path / name, tmp_path / "tensors", seconds=DEADLINE_SECONDS, max_bytes=10**7
        )

    for name, content in files.items():
        assert asyncio.run(read(name)) == check(content).facts
