"""Limits that the inspecting process puts on itself before it looks at a file."""

import math
import resource
import signal
import time

# What the interpreter and torch need beyond what they have mapped when the limits are set.
HEADROOM_BYTES = 512 * 2**20

# The three standard ones, the file, its tensors, and /proc/self/statm for as long as it is read.
WAITING_DESCRIPTORS = 6


def limit_while_waiting() -> None:
    """From here on: no more descriptors than handing a file over and `limit` take, no core dump."""
    _lower(resource.RLIMIT_NOFILE, WAITING_DESCRIPTORS)
    _lower(resource.RLIMIT_CORE, 0)


def limit(*, memory: int, output: int, seconds: int) -> None:
    """From here on: `memory` more bytes of address space, files of `output` bytes, `seconds` more of processor time.

    No descriptor can be opened any more, so neither can a file or a socket; no core is dumped. The service ends the process
    after `seconds` of wall time. Should the service be gone, the process ends one second later.
    """
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    _lower(resource.RLIMIT_AS, mapped + memory + HEADROOM_BYTES)
    _lower(resource.RLIMIT_FSIZE, output)
    _lower(resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, 0)
    signal.alarm(seconds + 1)


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))
