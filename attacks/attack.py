"""What an attack is, and how one is carried out: a malicious file is given to an inspecting process that is watched."""

import argparse
import importlib
import json
import pkgutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import attacks

ROOT = Path(__file__).parent.parent
HELPERS = {"__main__", "attack", "watched", "writing", "fuzz"}

# Isolated from the current folder and from variables, as the service starts inspecting processes.
WATCHED = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{{before}}\nfrom attacks.watched import main; main()"

SECONDS = 60
MAX_DATASET_BYTES = 2**27
RECEIVED_BYTES = 2**16


@dataclass(frozen=True)
class Attack:
    """A malicious file. `content` makes its bytes; code in the file that runs would create the file at the given path."""

    title: str
    content: Callable[[Path], bytes]
    kind: Literal["checkpoint", "dataset"] = "checkpoint"


@dataclass(frozen=True)
class Outcome:
    """What came of an attack.

    answer: the slug and the detail of the refusal, or the format of a file that was accepted; None without an answer.
    seconds: the processor time for the answer. The watch takes a part of it.
    grown_bytes: by how much the memory of the process grew at most.
    events: what the process did, of what Python reports to audit hooks, beside harmless events.
    left: names of files that the attack created.
    """

    answer: str | None
    seconds: float
    grown_bytes: int
    events: list[str]
    left: list[str]


def all_attacks() -> dict[str, list[Attack]]:
    """The attacks of each module."""
    names = sorted(module.name for module in pkgutil.iter_modules(attacks.__path__) if module.name not in HELPERS)
    return {name: list(importlib.import_module(f"attacks.{name}").ATTACKS) for name in names}


class Watched:
    """A context manager that starts watched inspecting processes, one for each attack, as forks of one that has warmed up.

    `before` is code of Python that the process runs first.
    """

    def __init__(self, before: str = "") -> None:
        self._code = WATCHED.format(before=before)

    def __enter__(self) -> Self:
        self._connection, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", self._code],
                stdin=other.fileno(),
                stdout=subprocess.DEVNULL,
                # A file would be subject to the limit of what a fork may write.
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"OMP_NUM_THREADS": "1"},
            )
        if not self._connection.recv(1):
            raise RuntimeError("the inspecting process did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._connection.close()
        self._process.wait()

    def carry_out(self, attack: Attack, folder: Path) -> Outcome:
        """What comes of an attack. `folder` is empty, and may be written to."""
        (folder / "upload").write_bytes(attack.content(folder / "pwned"))
        message = json.dumps({"kind": attack.kind, "seconds": SECONDS, "max_bytes": MAX_DATASET_BYTES}).encode()
        ours, theirs = socket.socketpair()
        with ours, theirs, (folder / "upload").open("rb") as file, (folder / "tensors").open("wb") as output:
            socket.send_fds(self._connection, [b"."], [theirs.fileno()])
            theirs.close()
            socket.send_fds(ours, [message], [file.fileno(), output.fileno()])
            answer = b"".join(iter(lambda: ours.recv(RECEIVED_BYTES), b""))
        left = sorted(path.name for path in folder.iterdir() if path.name not in ("upload", "tensors"))
        if not answer:
            return Outcome(None, 0, 0, [], left)
        found = json.loads(answer)
        said = ": ".join(found["refused"]) if "refused" in found else f"accepted as {found.get('format', 'a dataset')}"
        seen = found["watched"]
        return Outcome(said, seen["processor_seconds"], seen["grown_bytes"], seen["events"], left)


def main(chosen: Sequence[Attack]) -> None:
    """Carries out attacks and prints what came of them. Options write the files, or send them to a service, instead."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the malicious files into this folder")
    parser.add_argument("--send", metavar="URL", help="send the malicious files to the service at this address")
    parser.add_argument("--key", help="the API key for that service")
    options = parser.parse_args()
    if options.write:
        for number, attack in enumerate(chosen):
            (options.write / f"{number}.bin").write_bytes(attack.content(Path("pwned").absolute()))
            print(f"{number}.bin: {attack.title}")
    elif options.send:
        for attack in chosen:
            print(f"{attack.title}: {_sent(attack, options.send, options.key)}")
    else:
        with Watched() as watched:
            for attack in chosen:
                with tempfile.TemporaryDirectory() as folder:
                    _show(attack, watched.carry_out(attack, Path(folder)))


def _show(attack: Attack, outcome: Outcome) -> None:
    harm = outcome.events + [f"created {left}" for left in outcome.left]
    print(f"{attack.title}\n    {outcome.answer or 'no answer: ended by its limits'}")
    print(f"    {outcome.seconds:.2f} s, {outcome.grown_bytes / 2**20:.1f} MiB; did: {harm or 'nothing'}", flush=True)


def _sent(attack: Attack, url: str, key: str | None) -> str:
    headers = {"Content-Type": "application/octet-stream"} | ({"Authorization": f"Bearer {key}"} if key else {})
    content = attack.content(Path("pwned").absolute())
    request = urllib.request.Request(f"{url}/v1/{attack.kind}s", content, headers)
    try:
        with urllib.request.urlopen(request) as response:
            return f"{response.status}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {json.load(error).get('detail')}"
