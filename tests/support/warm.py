"""Inspecting processes that are forked from one that has finished its imports, so that tests need not wait for imports.

The file is run as two programs. `serve` warms up once, and forks for every connection to the socket that is its standard
input. `start PATH` connects to this socket and takes the place of an inspecting process: it hands its standard input and
standard error to a fork, lives as long as the fork, and ends as the fork ends.
"""

import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

STATUS_BYTES = 4


@contextmanager
def warm(folder: Path) -> Iterator[tuple[str, ...]]:
    """Starts `serve` with a socket in a folder. Gives the command that takes the place of an inspecting process."""
    path = str(folder / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        process = Popen([sys.executable, "-I", __file__, "serve"], stdin=listener.fileno(), env={"OMP_NUM_THREADS": "1"})
    try:
        # Without -S, the modules that .pth files import would take longer than everything else.
        yield (sys.executable, "-I", "-S", __file__, "start", path)
    finally:
        process.kill()
        process.wait()


def serve() -> None:
    """Forks for every connection to the socket that is the standard input."""
    from service.inspection import child

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    listener = socket.socket(fileno=os.dup(0))
    child.prepare()
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            watch(connection)
        connection.close()


def watch(connection: socket.socket) -> None:
    """Forks the inspecting process, and reports how it ended. Kills it if the connection ends first."""
    from service.inspection import child

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, descriptors, *_ = socket.recv_fds(connection, 1, 2)
    if not (process := os.fork()):
        connection.close()
        for number, descriptor in zip((0, 2), descriptors, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        with socket.socket(fileno=0) as parent:
            parent.sendall(child.READY)
            child.answer(parent)
        os._exit(0)
    for descriptor in descriptors:
        os.close(descriptor)
    ended = os.pidfd_open(process)
    select.select([connection.fileno(), ended], [], [])
    if not select.select([ended], [], [], 0)[0]:
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(STATUS_BYTES, signed=True))
    os._exit(0)


def start(path: str) -> None:
    """Has an inspecting process forked, waits for its end, and ends as it ended."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"."], [0, 2])
        os.close(0)
        status = int.from_bytes(connection.recv(STATUS_BYTES), signed=True)
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else start(sys.argv[2])
