"""Values that operators of ONNX take: tensors, and literals of a program."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Value: TypeAlias = Tensor | bool | int | float | Sequence[Any]
"""A tensor, or a number or a nested list of numbers, which stands for a tensor of int64, bool or float32."""

Ints: TypeAlias = Tensor | Sequence[int] | int
Number: TypeAlias = Tensor | int | float


def tensor(value: Value) -> Tensor:
    """The value as a tensor. A literal becomes a tensor in the memory of the CPU."""
    if isinstance(value, Tensor):
        return value
    made = torch.tensor(value)
    return made.long() if made.numel() == 0 else made


def together(*values: Value) -> list[Tensor]:
    """The values as tensors on one device: what is in the memory of the CPU moves to the device of the others."""
    made = [tensor(value) for value in values]
    device = next((one.device for one in made if one.device.type != "cpu"), made[0].device)
    return [one.to(device) for one in made]


def ints(value: Ints) -> list[int]:
    """The integers of a list, or of a tensor of one dimension or none."""
    if isinstance(value, Tensor):
        return [int(number) for number in value.flatten().tolist()]
    return [value] if isinstance(value, int) else [int(number) for number in value]


def number(value: Value) -> int | float:
    """A tensor or a list with one element as a number."""
    if isinstance(value, Tensor):
        item: int | float = value.item()
        return item
    return number(value[0]) if isinstance(value, Sequence) else value


def spatial(x: Tensor) -> int:
    """The number of axes that are neither the batch nor the channels."""
    return x.ndim - 2
