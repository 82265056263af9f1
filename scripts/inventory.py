"""Tells what an image consists of and what its process may do, as JSON. Runs inside the image, with Python alone."""

import json
import os
from collections import Counter
from importlib.metadata import distributions
from importlib.util import cache_from_source
from pathlib import Path

# Packages and libraries that only an image for GPUs has.
CUDA_PACKAGES = ("nvidia-", "cuda-", "triton")
CUDA_LIBRARIES = ("libtorch_cuda", "libc10_cuda", "libtorch_nvshmem", "libcaffe2_nvrtc")


def owners() -> dict[str, str]:
    """The package of each installed file, by path. Compiled files are those of their source."""
    found: dict[str, str] = {}
    for distribution in distributions():
        for file in distribution.files or ():
            path = os.path.normpath(str(distribution.locate_file(file)))
            found[path] = distribution.name
            if path.endswith(".py"):
                found[cache_from_source(path)] = distribution.name
    return found


def is_cuda(package: str, path: str) -> bool:
    return package.startswith(CUDA_PACKAGES) or Path(path).name.startswith(CUDA_LIBRARIES)


def main() -> None:
    """Walks through the root file system, and leaves out what is mounted into it."""
    packages, cuda, seen, writable = Counter[str](), 0, set[int](), []
    package_of, device = owners(), os.lstat("/").st_dev
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if os.lstat(os.path.join(folder, name)).st_dev == device]
        if os.access(folder, os.W_OK):
            writable.append(folder)
        for name in files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if status.st_ino in seen:
                continue
            seen.add(status.st_ino)
            package = package_of.get(path, "Debian and Python")
            packages[package] += status.st_size
            cuda += status.st_size if is_cuda(package, path) else 0
    capabilities = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")]
    found = {
        "user": os.getuid(),
        "capabilities": int(capabilities[0], 16),
        "writable": writable,
        "size": packages.total(),
        "cuda": cuda,
        "packages": dict(packages.most_common()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
