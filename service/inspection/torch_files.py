"""Reads checkpoints that torch.save, torch.jit.save or pickle.dump wrote.

Pickles are read by the machine in unpickling.py and by nothing else: no class or function that a file names is imported, and
nothing of a file is run.
"""

from io import BytesIO
from typing import BinaryIO

import torch

from service.inspection.archives import Archive
from service.inspection.budget import ADVICE, Budget
from service.inspection.constructors import Constructors, LoadStorage
from service.inspection.plans import STORAGE_DTYPES, Memory, Storage, integer
from service.inspection.refusal import Refusal
from service.inspection.tree import Content, plant
from service.inspection.unpickling import Name, Persistent, Unpickler

# Both begin a file in torch's legacy format.
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001


def is_archive(archive: Archive) -> bool:
    """Whether torch wrote an archive, with torch.save or torch.jit.save."""
    inside = {name.partition("/")[2] for name in archive.names}
    return "data.pkl" in inside


def read_archive(archive: Archive, nbytes: int) -> tuple[str, Content]:
    """The format (torch-zip or torchscript) and the content of an archive of torch in a file of `nbytes` bytes.

    Raises Refusal.
    """
    inside = {name.partition("/")[2]: name for name in archive.names}
    scripted = "constants.pkl" in inside or any(name.startswith("code/") for name in inside)
    reader = _ArchiveReader(archive, inside, nbytes)
    return ("torchscript" if scripted else "torch-zip"), reader.read()


def read_pickle(file: BinaryIO, nbytes: int) -> tuple[str, Content]:
    """The format (torch-legacy or pickle) and the content of a file of `nbytes` bytes that begins with a pickle.

    Raises Refusal.
    """
    file.seek(0)
    budget = Budget(nbytes)
    first = unpickled(file, nbytes, budget)
    if first != MAGIC_NUMBER or isinstance(first, bool):
        return "pickle", plant(first, budget)
    file.seek(0)
    return "torch-legacy", plant(_read_legacy(file, nbytes, budget, _load_storage(budget)), budget)


def unpickled(file: BinaryIO, end: int, budget: Budget) -> object:
    """The value of the pickle at the position of a file that ends at offset `end`. Raises Refusal."""
    return _unpickler(file, end, budget, _no_persistent).load()


def _unpickler(file: BinaryIO, end: int, budget: Budget, persistent: Persistent) -> Unpickler:
    return Unpickler(file, end, budget, Constructors(budget, _load_storage(budget)), persistent)


class _ArchiveReader:
    """Reads `data.pkl` of an archive, and the storages that it needs.

    `inside` maps the names inside the top folder of the archive to full names.
    """

    def __init__(self, archive: Archive, inside: dict[str, str], nbytes: int) -> None:
        self._archive = archive
        self._inside = inside
        self._budget = Budget(nbytes)
        self._memories: dict[str, Memory] = {}
        # Members may share bytes of the file. What is read must not be larger than the file.
        self._unread = nbytes
        self._swapped = self._read("byteorder") == b"big" if "byteorder" in inside else False

    def read(self) -> Content:
        data = self._read("data.pkl")
        loaded = _unpickler(BytesIO(data), len(data), self._budget, self._storage).load()
        return plant(loaded, self._budget)

    def _read(self, name: str) -> bytearray:
        full = self._inside[name]
        self._unread -= self._archive.size(full)
        if self._unread < 0:
            raise Refusal("not-a-checkpoint", f"the members of the archive are larger than the archive; {ADVICE}")
        return bytearray(self._archive.read(full))

    def _storage(self, identifier: object) -> object:
        dtype, name, numel, _ = _storage_parts(identifier, count=5)
        if name not in self._memories:
            if f"data/{name}" not in self._inside:
                raise Refusal(
                    "not-a-checkpoint", f"the archive has no data for the storage {name[:50]!r}; write the file again"
                )
            data = self._read(f"data/{name}")
            if self._swapped:
                data = _byteswapped(data, dtype)
            self._memories[name] = Memory(_flat(data))
        return Storage(dtype, self._memories[name], numel)


def _read_legacy(file: BinaryIO, nbytes: int, budget: Budget, load_storage: LoadStorage) -> object:
    """The value in a file of torch's legacy format: some pickles, then the bytes of the storages."""
    memories: dict[str, tuple[torch.dtype, Memory]] = {}

    def persistent(identifier: object) -> object:
        if isinstance(identifier, tuple) and identifier[:1] == ("module",) and len(identifier) > 1:
            return identifier[1]  # a class, and its source code
        dtype, name, numel, view = _storage_parts(identifier, count=6)
        _, memory = memories.setdefault(name, (dtype, Memory()))
        if view is None:
            return Storage(dtype, memory, numel)
        if not isinstance(view, tuple) or len(view) != 3:
            raise TypeError("not a view of a storage")
        return Storage(dtype, memory, integer(view[2]), integer(view[1]) * dtype.itemsize)

    unpickler = Unpickler(file, nbytes, budget, Constructors(budget, load_storage), persistent)
    if unpickler.load() != MAGIC_NUMBER or unpickler.load() != PROTOCOL_VERSION:
        raise Refusal("not-a-checkpoint", f"the file is of an unknown version of torch's legacy format; {ADVICE}")
    unpickler.load()  # the byte order and the sizes of integers
    loaded, names = unpickler.load(), unpickler.load()
    if not isinstance(names, list):
        raise Refusal("not-a-checkpoint", f"the file has no list of its storages; {ADVICE}")
    for name in names:
        if not isinstance(name, str) or name not in memories or memories[name][1].data is not None:
            raise Refusal("not-a-checkpoint", f"the list of storages in the file is damaged; {ADVICE}")
        dtype, memory = memories[name]
        size = int.from_bytes(file.read(8), "little") * dtype.itemsize
        if size > nbytes - file.tell():
            raise Refusal("truncated-file", "the file ends inside its storages; upload the file again")
        memory.data = _flat(bytearray(file.read(size)))
    return loaded


def _load_storage(budget: Budget) -> LoadStorage:
    """A function that reads the storage of a tensor in a file of pickle.dump: bytes in torch's legacy format."""

    def nested(_: object) -> object:
        raise Refusal("forbidden-pickle", f"the file holds a file of torch.save in a file of torch.save; {ADVICE}")

    def load(content: object) -> object:
        if not isinstance(content, bytes):
            raise TypeError("not bytes")
        # Every copy counts: the same bytes may be read again and again.
        budget.reserve(len(content))
        return _read_legacy(BytesIO(content), len(content), budget, nested)

    return load


def _storage_parts(identifier: object, count: int) -> tuple[torch.dtype, str, int, object]:
    """The dtype, name, number of elements and view of the storage that a persistent id stands for."""
    if not isinstance(identifier, tuple) or not identifier or identifier[0] != "storage":
        raise Refusal("forbidden-pickle", f"the pickle in the file refers to an object outside of it; {ADVICE}")
    if len(identifier) < 5 or len(identifier) > count:
        raise TypeError("not a storage")
    kind, name, numel = identifier[1], identifier[2], integer(identifier[4])
    dtype = STORAGE_DTYPES.get(kind.text.rpartition(".")[2]) if isinstance(kind, Name) else None
    if dtype is None or not isinstance(name, str) or numel < 0:
        raise TypeError("not a storage")
    return dtype, name, numel, identifier[5] if len(identifier) > 5 else None


def _no_persistent(_: object) -> object:
    raise Refusal("forbidden-pickle", f"the pickle in the file refers to an object outside of it; {ADVICE}")


def _flat(data: bytearray) -> torch.Tensor:
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _byteswapped(data: bytearray, dtype: torch.dtype) -> bytearray:
    width = dtype.itemsize // (2 if dtype.is_complex else 1)
    data = data[: len(data) - len(data) % width]
    swapped = bytearray(len(data))
    for place in range(width):
        swapped[place::width] = data[width - 1 - place :: width]
    return swapped
