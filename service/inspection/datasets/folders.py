"""Zip archives of images in class folders, as torchvision's ImageFolder has them."""

import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import torch

from service.inspection.datasets import pictures
from service.inspection.datasets.found import Found, bad, listed, shown
from service.inspection.datasets.of_arrays import set_class_names
from service.inspection.datasets.roles import SPLITS
from service.inspection.refusal import Refusal

MAX_FILE_BYTES = 64 * 2**20

# What file managers leave behind.
DEBRIS = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")

ADVICE = "send a zip of one folder of PNG, JPEG, BMP, GIF or WebP images for each class, or an .npz file with `images`"


@dataclass
class Folders:
    """Which members of an archive are images of which class. `members` has the path below the class folders, sorted."""

    members: dict[str, zipfile.ZipInfo]
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(archive: zipfile.ZipFile, *, max_bytes: int, size: tuple[int, int] | None) -> Found:
    """The dataset in an archive of images. The classes are the names of the folders, sorted.

    If the images differ in size, or from `size` (height, width), they are scaled and cropped. Without `size`, the most frequent
    size is taken. Raises Refusal, also if the images have more than `max_bytes` bytes together.
    """
    folders = arrange(archive)
    found = Found("images", notes=folders.notes)
    sizes, grey = _survey(archive, folders, max_bytes)
    height, width = size or _most_frequent(sizes)
    others = sum(count for each, count in sizes.items() if each != (height, width))
    if others:
        found.notes.append(
            f"Some images had another size than {height} x {width}: {others} of {len(folders.members)}. Each of these was "
            f"scaled with bilinear interpolation until it covered {height} x {width}, and its centre was cut out (Resize and "
            f"CenterCrop of torchvision)."
        )
    channels = 1 if grey else 3
    if len(folders.members) * height * width * channels > max_bytes:
        raise bad(f"the images have more than {max_bytes} bytes unpacked; send fewer images, or a smaller ?size=")
    images = np.empty((len(folders.members), height, width, channels), np.uint8)
    for row, (path, member) in zip(images, folders.members.items(), strict=True):
        image = pictures.decoded(path, pictures.opened(path, _content(archive, member)), grey=grey)
        row[:] = pictures.pixels(pictures.cover(image, height, width))
    found.tensors["images"] = torch.from_numpy(images)
    if folders.classes:
        numbers = {name: number for number, name in enumerate(folders.classes)}
        labels = [numbers[path.partition("/")[0]] for path in folders.members]
        found.tensors["labels"] = torch.tensor(labels, dtype=torch.int64)
        found.labels, found.classes = "classes", len(folders.classes)
        set_class_names(found, folders.classes)
    return found


def arrange(archive: zipfile.ZipFile) -> Folders:
    """Finds the class folders of an archive. Raises Refusal if it holds no image."""
    paths = {PurePosixPath(member.filename.replace("\\", "/")): member for member in archive.infolist()}
    files = {path: member for path, member in paths.items() if not member.is_dir() and not _is_debris(path)}
    images = {path: member for path, member in files.items() if path.suffix.lower() in pictures.SUFFIXES}
    if not images:
        raise _without_images([path.as_posix() for path in files])
    notes = []
    if others := sorted(path.as_posix() for path in files.keys() - images.keys()):
        notes.append(f"Files that are no PNG, JPEG, BMP, GIF or WebP images were ignored ({len(others)}): {listed(others)}.")
    images = _below_common_folders(images)
    images = _below_common_folders(_of_one_split(images, notes))
    folders = {path: member for path, member in images.items() if len(path.parts) > 1}
    if folders and len(folders) < len(images):
        beside = sorted(path.as_posix() for path in images.keys() - folders.keys())
        notes.append(f"Images beside the class folders were ignored ({len(beside)}): {listed(beside)}.")
    if not folders:
        notes.append("The images lie in no class folders or in a single one, so they have no labels.")
    members = {path.as_posix(): member for path, member in sorted((folders or images).items(), key=lambda item: item[0].parts)}
    classes = sorted({path.parts[0] for path in folders})
    if all(name.isdecimal() for name in classes) and classes != sorted(classes, key=int):
        notes.append("The class folders are sorted as texts, as torchvision does it: 10 comes before 2.")
    return Folders(members, classes, notes)


def _is_debris(path: PurePosixPath) -> bool:
    return any(part in DEBRIS or part.startswith(".") for part in path.parts)


def _without_images(names: list[str]) -> Refusal:
    if any(name.endswith("data.pkl") for name in names):
        return bad("the file was written by torch.save, as a pickle; write it with numpy.savez(path, images=…, labels=…)")
    return bad(f"the zip archive holds neither arrays nor images, but {listed(names) or 'no files'}; {ADVICE}")


def _below_common_folders(images: dict[PurePosixPath, zipfile.ZipInfo]) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The images by their paths below the folders that all of them are in."""
    common = 0
    every = [path.parts[:-1] for path in images]
    for parts in zip(*every, strict=False):
        if len(set(parts)) > 1:
            break
        common += 1
    return {PurePosixPath(*path.parts[common:]): member for path, member in images.items()}


def _of_one_split(images: dict[PurePosixPath, zipfile.ZipInfo], notes: list[str]) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The images of the first split of SPLITS, if the topmost folders are splits (train, test, …)."""
    tops = {path.parts[0] for path in images if len(path.parts) > 1}
    splits = {SPLITS[top.lower()]: top for top in sorted(tops) if top.lower() in SPLITS}
    if len(splits) < 2:
        return images
    taken = next(splits[split] for split in SPLITS.values() if split in splits)
    others = sorted({path.parts[0] for path in images} - {taken})
    notes.append(
        f"The folder {shown(taken)} was taken; ignored beside it: {listed(others)}. To use another one, send it as a dataset "
        f"of its own."
    )
    return {path: member for path, member in images.items() if path.parts[0] == taken}


def _survey(archive: zipfile.ZipFile, folders: Folders, max_bytes: int) -> tuple[Counter[tuple[int, int]], bool]:
    """How many images have each size (height, width), and whether all are grey. Adds notes. Raises Refusal."""
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    animated = 0
    if sum(member.file_size for member in folders.members.values()) > max_bytes:
        raise bad(f"the image files have more than {max_bytes} bytes together; send fewer or smaller images")
    for path, member in folders.members.items():
        image = pictures.opened(path, _content(archive, member))
        sizes[image.height, image.width] += 1
        modes[image.mode] += 1
        with pictures.decoding(path):
            animated += getattr(image, "is_animated", False)
    for what, count in (
        ("are animations; their first frames were taken", animated),
        ("have transparency, which was left out", sum(modes[mode] for mode in pictures.TRANSPARENT_MODES)),
        ("have 16 bits for each value; the upper 8 were taken", sum(modes[mode] for mode in pictures.SIXTEEN_BITS)),
    ):
        if count:
            folders.notes.append(f"Some images {what}: {count} of {len(folders.members)}.")
    grey = sum(modes[mode] for mode in pictures.GREY_MODES)
    if 0 < grey < len(folders.members):
        folders.notes.append(f"Some images are grey, and all were converted to RGB: {grey} of {len(folders.members)}.")
    return sizes, grey == len(folders.members)


def _most_frequent(sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    """The most frequent size; of several, the smallest. Raises Refusal if there are many images and no size occurs twice."""
    size, count = min(sizes.items(), key=lambda item: (-item[1], item[0]))
    if len(sizes) > 1 and count == 1:
        raise bad(f"no two of the {len(sizes)} images have the same size; say which size the network takes, as ?size=224")
    return size


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > MAX_FILE_BYTES:
        raise bad(f"`{shown(member.filename)}` has more than {MAX_FILE_BYTES} bytes; send a smaller image")
    with archive.open(member) as file:
        return file.read()
