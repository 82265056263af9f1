"""The process of a cluster. It does what the lines of standard input ask for (`Cluster`), and answers each with a line.

Arguments: a folder, and the images as JSON. The process makes namespaces for itself first, so that nothing that it does
reaches the network or the mounts of the machine.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tests.support.cluster.images import Image, Images
from tests.support.cluster.machine import Machine
from tests.support.cluster.sandbox import NEW_MOUNTS, NEW_NETWORK, NEW_USERS, SET_PARENT_DEATH_SIGNAL, call, map_user

# The longest line: all objects of an overlay.
LINE_BYTES = 2**24


def enter_namespaces() -> bool:
    """Gives this process namespaces of its own. Returns whether it had to become root in a user namespace alone."""
    mapped = os.geteuid() != 0
    if mapped:
        user, group = os.geteuid(), os.getegid()
        call("unshare", NEW_USERS)
        map_user(0, user, group)
    call("unshare", NEW_NETWORK | NEW_MOUNTS)
    return mapped


async def serve(machine: Machine) -> None:
    """Answers the lines of standard input until it ends."""
    running = asyncio.create_task(machine.run())
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        name, arguments = json.loads(line)
        answering = asyncio.ensure_future(getattr(machine, name)(*arguments))
        await asyncio.wait([answering, running], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        print(json.dumps(await answering), flush=True)


if __name__ == "__main__":
    call("prctl", SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    is_mapped = enter_namespaces()
    images = Images({name: Image(**fields) for name, fields in json.loads(sys.argv[2]).items()})
    asyncio.run(serve(Machine(Path(sys.argv[1]), images, mapped=is_mapped)))
