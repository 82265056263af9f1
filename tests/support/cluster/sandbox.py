"""Runs the process of one container: `python -I -S sandbox.py DESCRIPTION`, where DESCRIPTION is JSON (`Description`).

This is what a container runtime does. The process has the network of its pod; its own mounts, processes and host name; the
user of its pod, no capabilities, and no way to get more. Its root folder has the programs of this machine, the files of the
image and the volumes, and nothing else of this machine. As process 1, this program passes SIGTERM on and takes in orphans, like
the `tini` of an image.

The program imports nothing but the standard library, because each start of a container runs it.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypedDict

NEW_MOUNTS, NEW_HOST_NAME, NEW_IPC, NEW_USERS, NEW_PROCESSES, NEW_NETWORK = (
    0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
)  # fmt: skip
BIND, MOVE, RECURSIVE, PRIVATE = 4096, 8192, 16384, 1 << 18
SET_PARENT_DEATH_SIGNAL, SET_NO_NEW_PRIVILEGES = 1, 38

# The folders of this machine that every container sees, and those files of /etc that programs need.
MACHINE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/sys")
ETC = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl", "/etc/localtime")

libc = ctypes.CDLL(None, use_errno=True)


class Description(TypedDict):
    """A container.

    network: the descriptor of the network namespace.
    user: the number of the user and of the group.
    mapped: whether this process is root in a user namespace alone, where it can become no other user of the machine.
    files, folders, volumes: texts of files, read-only folders of the image, and volumes, by their places in the container.
    """

    name: str
    network: int
    root: str
    read_only: bool
    user: int
    mapped: bool
    files: dict[str, str]
    folders: dict[str, str]
    volumes: dict[str, str]
    environment: dict[str, str]
    folder: str
    command: list[str]


def call(function: str, *arguments: Any) -> None:
    """Calls a function of the C library. Raises OSError."""
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def main() -> NoReturn:
    about: Description = json.loads(sys.argv[1])
    # Whoever ends the parent ends all containers.
    call("prctl", SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    call("setns", about["network"], NEW_NETWORK)
    call("unshare", NEW_MOUNTS | NEW_HOST_NAME | NEW_IPC | NEW_PROCESSES)
    guard(lambda: process_1(about))


def process_1(about: Description) -> NoReturn:
    """Makes the root folder of the container, and runs its command."""
    call("prctl", SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    name = about["name"].encode()
    call("sethostname", name, len(name))
    make_root(about)
    guard(lambda: run(about))


def guard(child: Callable[[], NoReturn]) -> NoReturn:
    """Runs a function in a child process, passes SIGTERM on to it, and ends as it ends. Takes in orphans."""
    process = 0

    def pass_on(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, number)

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    if not (process := os.fork()):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        child()
    signal.signal(signal.SIGTERM, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    while True:
        ended, status = os.wait()
        if ended == process:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def make_root(about: Description) -> None:
    root = about["root"]
    call("mount", b"none", b"/", None, RECURSIVE | PRIVATE, None)
    call("mount", b"tmpfs", root.encode(), b"tmpfs", 0, b"mode=755")
    shown = {path: path for path in (*MACHINE, *ETC) if os.path.exists(path)}
    shown |= dict(sorted({**about["folders"], "/dev": "/dev"}.items()))
    for place, source in shown.items():
        if os.path.islink(source):
            os.makedirs(os.path.dirname(root + place), exist_ok=True)
            os.symlink(os.readlink(source), root + place)
        else:
            bind(source, root + place)
    for place, text in about["files"].items():
        Path(root + place).write_text(text)
    for place in (*about["volumes"], about["folder"], "/proc"):
        os.makedirs(root + place, exist_ok=True)
    if about["read_only"]:
        make_read_only(root)
    for place, source in about["volumes"].items():
        bind(source, root + place)
    call("mount", b"proc", f"{root}/proc".encode(), b"proc", 0, None)
    # Moved over the root folder of the machine, and not only chosen (chroot): otherwise `run` could make no user namespace.
    os.chdir(root)
    call("mount", b".", b"/", None, MOVE, None)
    os.chroot(".")


def bind(source: str, place: str) -> None:
    """Shows a folder or a file of this machine at another place."""
    if os.path.isdir(source):
        os.makedirs(place, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        Path(place).touch()
    call("mount", source.encode(), place.encode(), None, BIND | RECURSIVE, None)


def make_read_only(root: str) -> None:
    """Makes a mount, and all mounts below it, read-only (the system call mount_setattr, which Linux has since 5.12)."""
    read_only = (ctypes.c_uint64 * 4)(1, 0, 0, 0)
    here, recursive = -100, 0x8000
    call("syscall", 442, here, root.encode(), recursive, ctypes.byref(read_only), ctypes.sizeof(read_only))


def run(about: Description) -> NoReturn:
    user = about["user"]
    if about["mapped"]:
        call("unshare", NEW_USERS)
        map_user(user, 0, 0)
    else:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    call("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    os.chdir(about["folder"])
    os.execvpe(about["command"][0], about["command"], about["environment"])


def map_user(inside: int, user: int, group: int) -> None:
    """Says which user and group of the outer user namespace are the user `inside` this one."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inside} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{inside} {group} 1")


if __name__ == "__main__":
    main()
