"""What decides the bits of rebuilt weights."""

import hashlib
import platform
import re
from dataclasses import astuple, dataclass

import torch
import torch.nn.functional as F

from nern import tensorfile


@dataclass(frozen=True)
class Renderer:
    """Whatever the bits of rendered weights depend on, beside the artefact."""

    release: str
    torch: str
    processor: str
    """The kind of processor, and the set of its instructions that torch uses."""
    arithmetic: str
    """A hash of what layers of fixed weights predict here: libraries of matrix products choose by more than the above."""

    @classmethod
    def here(cls, release: str) -> "Renderer":
        """The renderer of this process."""
        processor = f"{platform.machine()}.{torch.backends.cpu.get_cpu_capability()}"
        return cls(release, torch.__version__, processor, _arithmetic())

    def etag(self, artefact_sha256: str) -> str:
        """The strong ETag, without quotes, of all that is rendered from one artefact."""
        # Names such as "Z VECTOR" have characters that an ETag, or a file's name made from it, can't have.
        parts = (re.sub(r"[^A-Za-z0-9.+_]", "_", part) for part in astuple(self))
        return "-".join([artefact_sha256[:32], *parts])


def _arithmetic() -> str:
    x = torch.arange(256.0)[:, None]
    for outputs in (192, 160, 9):
        weight = torch.arange(outputs * x.shape[1]).cos().view(outputs, -1)
        x = F.silu(F.linear(x.sin(), weight))
    return hashlib.sha256(tensorfile.to_bytes(x)).hexdigest()[:8]
