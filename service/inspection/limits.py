"""Limits that the inspecting process sets for itself before it reads a file."""

import math
import resource
import signal
import time
from contextlib import suppress

# Address space that Python and torch need beyond what is mapped when the limits are set.
HEADROOM_BYTES = 512 * 2**20

# The three standard streams, the uploaded file, the file of its tensors, and /proc/self/statm while `limit` reads it.
WAITING_DESCRIPTORS = 6


def limit_while_waiting() -> None:
    """Limits a process that waits for a file: WAITING_DESCRIPTORS descriptors, no core dump.

    If the machine has no memory left, the kernel ends this process rather than the service.
    """
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")
    _lower(resource.RLIMIT_NOFILE, WAITING_DESCRIPTORS)
    _lower(resource.RLIMIT_CORE, 0)


def limit(*, memory_bytes: int, output_bytes: int, seconds: int) -> None:
    """Limits a process that is about to read a file.

    The process may map `memory_bytes` more of address space, write files of `output_bytes`, and use `seconds` more of processor
    time. The process can open no descriptor, and so neither a file nor a socket. The process leaves no core dump. The service
    ends the process after `seconds` of wall time. If the service itself has ended, an alarm ends the process one second later.
    """
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    _lower(resource.RLIMIT_AS, mapped + memory_bytes + HEADROOM_BYTES)
    _lower(resource.RLIMIT_FSIZE, output_bytes)
    # At the soft limit, the kernel sends SIGXCPU. At the hard limit it sends SIGKILL, as it does to a process for which the
    # machine has no memory.
    _lower(resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds, room=1)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, 0)
    signal.alarm(seconds + 1)


def _lower(which: int, value: int, *, room: int = 0) -> None:
    """Sets the soft limit to a value, and the hard limit to `room` more, or to less if there is a lower hard limit."""
    _, hard = resource.getrlimit(which)
    most = value + room if hard == resource.RLIM_INFINITY else min(value + room, hard)
    resource.setrlimit(which, (min(value, most), most))
