"""Files of torch.export for the networks of the zoo. Every file is made once."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from nern.graph.exported import Exported, read
from tests.support.zoo import ZOO


def saved(module: nn.Module, inputs: Sequence[Tensor], *, free: bool = False, core: bool = False) -> bytes:
    """The bytes of a `.pt2` file. `free`: the batch extent is free. `core`: decomposed to the core ATen IR."""
    buffer = BytesIO()
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs) if free else None
    with warnings.catch_warnings():
        # torch warns of the attributes of its own recurrent layers.
        warnings.filterwarnings("ignore", message="The tensor attributes")
        # Two tensors may share a part of their memory.
        warnings.filterwarnings("ignore", message="No complete tensor found")
        program = torch.export.export(module, tuple(inputs), dynamic_shapes=shapes)
        torch.export.save(program.run_decompositions() if core else program, buffer)
    return buffer.getvalue()


@cache
def zoo_file(name: str, *, free: bool = False, core: bool = False) -> bytes:
    """The file of a network of the zoo, with a batch of one or a free batch extent."""
    return saved(ZOO[name].network(), ZOO[name].inputs(2 if free else 1), free=free, core=core)


def unpickled(file: BinaryIO) -> Mapping[str, Tensor]:
    """The tensors of a file of torch.save, read by the unpickler of torch."""
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


def opened(content: bytes) -> Exported:
    """What the reader finds in a file."""
    return read(BytesIO(content), unpickled)


def flat(outputs: Any) -> list[Tensor]:
    """The outputs of a network as a list of tensors."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def difference(given: Any, expected: Any) -> float:
    """The largest difference of outputs. Infinite if shapes differ."""
    pairs = list(zip(flat(given), flat(expected), strict=True))
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return max(float((a - b).detach().abs().max()) for a, b in pairs)
