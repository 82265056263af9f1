"""Everything that decides the bits of rendered weights, besides the artefact."""

import hashlib
import platform
import re
from dataclasses import astuple, dataclass

import torch
import torch.nn.functional as F

from nern import tensorfile


@dataclass(frozen=True)
class Renderer:
    """The software and hardware that render weights. Equal renderers render the same bits from the same artefact."""

    release: str
    torch: str
    processor: str
    """The kind of processor, and the instruction set that torch uses."""
    arithmetic: str
    """A hash of the outputs of layers of fixed weights. Libraries of matrix products also choose their code by other properties
    of the processor, such as its maker."""

    @classmethod
    def here(cls, release: str) -> "Renderer":
        """The renderer of this process."""
        processor = f"{platform.machine()}.{torch.backends.cpu.get_cpu_capability()}"
        return cls(release, torch.__version__, processor, _arithmetic())

    def etag(self, artefact_sha256: str) -> str:
        """The strong ETag, without quotes, of the weights that are rendered from one artefact."""
        # Names such as "Z VECTOR" have characters that are not allowed in an ETag or in the name of a file.
        parts = (re.sub(r"[^A-Za-z0-9.+_]", "_", part) for part in astuple(self))
        return "-".join([artefact_sha256[:32], *parts])


def _arithmetic() -> str:
    """A hash of the outputs of three linear layers of fixed weights, with shapes as in a predictor, for fixed inputs."""
    x = torch.arange(256.0)[:, None]
    for outputs in (192, 160, 9):
        weight = torch.arange(outputs * x.shape[1]).cos().view(outputs, -1)
        x = F.silu(F.linear(x.sin(), weight))
    return hashlib.sha256(tensorfile.to_bytes(x)).hexdigest()[:8]
