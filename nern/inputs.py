"""Inputs that are no photographs: tensors of any shape, one for each input of a network, with or without labels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nern import tensorfile
from nern.errors import UnusableImages
from nern.evaluation import EVALUATION_BATCH, HeldOutSet, label_facts
from nern.graph.program import Port
from nern.images import CPU


@dataclass(frozen=True)
class Inputs:
    """Inputs in memory, on the CPU.

    arrays: a tensor (n, ...) for each input of the network, by name. Floating-point inputs are given to the network as float32,
        integers in the dtype that the network takes.
    labels: None, or a label for each input: integers (n,) for classes, integers (n, height, width) for dense classes, or
        floating-point targets in the shape of an output.

    Raises UnusableImages if these do not fit each other.
    """

    arrays: Mapping[str, Tensor]
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.arrays:
            raise UnusableImages("there are no inputs")
        lengths = {name: len(array) if array.ndim else 0 for name, array in self.arrays.items()}
        if len(set(lengths.values())) > 1:
            described = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
            raise UnusableImages(f"the inputs differ in number: {described}")
        if self.labels is not None and (self.labels.ndim == 0 or len(self.labels) != len(self)):
            counted = len(self.labels) if self.labels.ndim else 0
            raise UnusableImages(f"there are {len(self)} inputs, but {counted} labels")
        if any(tensor is not None and tensor.device != CPU for tensor in (*self.arrays.values(), self.labels)):
            raise UnusableImages("the inputs and labels must be on the CPU; batches are moved to the device of the network")
        for name, array in self.arrays.items():
            if 0 in array.shape[1:]:
                raise UnusableImages(f"the input {name!r} of shape {list(array.shape)} has no numbers")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def split(self, ports: Sequence[Port], held_out: int, generator: torch.Generator) -> tuple["InputSubset", HeldOutSet]:
        """Splits the inputs at random into inputs for the training and `held_out` inputs for evaluation.

        `ports` are the inputs of the network; `make_plan` has checked that the arrays fit them.
        """
        order = torch.randperm(len(self), generator=generator)
        columns, dtypes = self._in_order(ports), [dtype_of(port) for port in ports]
        train, test = (InputSubset(columns, dtypes, rows) for rows in (order[held_out:], order[:held_out]))
        labels = None if self.labels is None else self.labels[order[:held_out]]
        if labels is not None:
            labels = labels.float() if labels.is_floating_point() else labels.long()
        return train, HeldOutSet(test.batches, labels, label_facts(self.labels))

    def _in_order(self, ports: Sequence[Port]) -> list[Tensor]:
        """The arrays in the order of the network's inputs. A single array belongs to a single input, whatever its name."""
        return list(self.arrays.values()) if len(ports) == 1 else [self.arrays[port.name] for port in ports]


@dataclass(frozen=True)
class InputSubset:
    """A source of inputs that draws from the `rows`, int64 (n,), of arrays. The network takes them in these dtypes."""

    arrays: Sequence[Tensor]
    dtypes: Sequence[torch.dtype]
    rows: Tensor

    def batch(self, count: int, generator: torch.Generator, device: torch.device = CPU) -> tuple[Tensor, ...]:
        """`count` inputs drawn with replacement, on `device`: a tensor (count, ...) for each input of the network."""
        chosen = self.rows[torch.randint(len(self.rows), (count,), generator=generator)]
        return tuple(part.to(device) for part in self._take(chosen))

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """All inputs in the order of the rows, in batches."""
        return (self._take(rows) for rows in self.rows.split(EVALUATION_BATCH))

    def _take(self, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(array[rows].to(dtype) for array, dtype in zip(self.arrays, self.dtypes, strict=True))


def dtype_of(port: Port) -> torch.dtype:
    """The dtype of the tensors that are given to an input. Networks compute in float32."""
    dtype = tensorfile.DTYPES[port.dtype]
    return torch.float32 if dtype.is_floating_point else dtype
