"""Limits that the inspecting process puts on itself before it looks at a file."""

import resource

# What the interpreter and torch need beyond what they have mapped when the limits are set.
HEADROOM = 512 * 2**20


def limit(*, memory: int, output: int, seconds: int) -> None:
    """From here on: `memory` more bytes of address space, files of `output` bytes, `seconds` of processor time.

    No descriptor can be opened any more, so neither can a file or a socket; no core is dumped.
    """
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    _lower(resource.RLIMIT_AS, mapped + memory + HEADROOM)
    _lower(resource.RLIMIT_FSIZE, output)
    _lower(resource.RLIMIT_CPU, seconds)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, 0)


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))
