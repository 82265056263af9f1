"""The inspecting process, with a watch on what it does while it reads a file.

The process warms up once. For each file it then forks, because an inspecting process can read only one. The answer has one more
member, `watched`: the events that Python reported to an audit hook beside harmless ones, by how many bytes the memory grew at
most, and the processor time. The list of functions that are refused by name (`ATTACKS` in
`service/inspection/constructors.py`) is empty here, so an attack shows what the reader makes of it.
"""

import os
import resource
import socket
import sys
from typing import Any

from service.inspection import child
from service.inspection.constructors import ATTACKS

# What ordinary code of Python, numpy and torch does. Asking for the id of an object is such an event, for example.
HARMLESS = {"builtins.id", "object.__getattr__", "sys._getframe"}
MAX_EVENTS = 10

events: list[str] = []
rss_before = 0

limit, read = child.limit, child.read


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes an event."""
    # Headers of arrays are parsed as literals of Python, which `compile` turns into a tree and not into code.
    literal = event == "compile" and arguments[1] == "<unknown>"
    if event not in HARMLESS and not literal and len(events) < MAX_EVENTS:
        events.append(f"{event} {str(arguments)[:80]}")


def watched_limit(**limits: Any) -> None:
    """Sets the limits, then begins to watch."""
    global rss_before
    # The highest memory so far, for example while modules were imported, is forgotten.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    limit(**limits)
    rss_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.addaudithook(watch)


def watched_read(*descriptors: int, **options: Any) -> dict[str, Any]:
    """Reads the file, and adds what was seen to the answer."""
    answer = read(*descriptors, **options)
    used = resource.getrusage(resource.RUSAGE_SELF)
    grown, seconds = used.ru_maxrss - rss_before, used.ru_utime + used.ru_stime
    return answer | {"watched": {"events": events, "grown_bytes": grown * 1024, "processor_seconds": seconds}}


def main() -> None:
    """Forks for every socket that arrives over standard input. A fork answers over its socket."""
    child.limit, child.read = watched_limit, watched_read  # type: ignore[assignment]
    ATTACKS.clear()
    child.prepare()
    with socket.socket(fileno=0) as parent:
        parent.sendall(child.READY)
        while True:
            _, descriptors, *_ = socket.recv_fds(parent, 1, 1)
            if not descriptors:
                return
            with socket.socket(fileno=descriptors[0]) as connection:
                if not os.fork():
                    parent.close()
                    child.answer(connection)
                    os._exit(0)
            os.waitpid(-1, os.WNOHANG)
