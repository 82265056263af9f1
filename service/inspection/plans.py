"""What a file says of its tensors and arrays, before any is made.

The reader of pickles only collects these descriptions. A tensor is made later, from a description whose numbers have been
compared with the bytes that are there.
"""

import math
import operator
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.inspection.refusal import Refusal
from service.inspection.unpickling import Buildable

# By the names that torch gives them: `torch.float32`, and `torch.float` for the same.
TORCH_DTYPES: dict[str, torch.dtype] = {
    f"torch.{name}": dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)
}

STORAGE_DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "QUInt4x2Storage": torch.quint4x2,
    "QUInt2x4Storage": torch.quint2x4,
    "UntypedStorage": torch.uint8,
}

# By kind and size in bytes, as in the code `f4`.
NUMPY_DTYPES: dict[str, type[np.generic]] = {
    "f2": np.float16,
    "f4": np.float32,
    "f8": np.float64,
    "i1": np.int8,
    "i2": np.int16,
    "i4": np.int32,
    "i8": np.int64,
    "u1": np.uint8,
    "u2": np.uint16,
    "u4": np.uint32,
    "u8": np.uint64,
    "b1": np.bool_,
    "c8": np.complex64,
    "c16": np.complex128,
}

# Far more dimensions than any tensor has; numpy allows no more.
MAX_DIMENSIONS = 64


@dataclass(eq=False, slots=True)
class Memory:
    """The bytes of a storage, a flat tensor of uint8. They are None until they have been read."""

    data: Tensor | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """A part of a memory: `numel` elements of `dtype` from the byte `start`."""

    dtype: torch.dtype
    memory: Memory
    numel: int
    start: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class TensorPlan:
    """A tensor of `dtype` over a storage. Without a storage, the tensor has no values (it was on the meta device)."""

    storage: Storage | None
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    conjugated: bool = False
    negated: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class SparsePlan:
    """A sparse tensor in COO layout: `indices` is dimensions x values."""

    indices: TensorPlan
    values: TensorPlan
    size: tuple[int, ...]


class DtypePlan(Buildable):
    """A dtype of numpy. `code` is a key of NUMPY_DTYPES, or None for a dtype that is no number."""

    def __init__(self, code: str) -> None:
        code = {"?": "b1"}.get(code.lstrip("<=|>"), code.lstrip("<=|>"))
        self.code = code if code in NUMPY_DTYPES else None
        self.order = "<"

    def build(self, state: object) -> None:
        """Takes the state (version, byte order, …)."""
        if not isinstance(state, tuple) or len(state) < 2 or not isinstance(state[1], str):
            raise TypeError("not the state of a dtype")
        self.order = ">" if state[1] == ">" else "<"

    @property
    def dtype(self) -> "np.dtype[np.generic] | None":
        """The dtype of numpy, or None for a dtype that is no number."""
        return None if self.code is None else np.dtype(NUMPY_DTYPES[self.code]).newbyteorder("<" if self.order == "<" else ">")


class ArrayPlan(Buildable):
    """An array of numpy: `data` has its numbers, or `objects` its values. Both are None before its state is known."""

    def __init__(self) -> None:
        self.dtype: DtypePlan | None = None
        self.shape: tuple[int, ...] = ()
        self.fortran = False
        self.data: bytes | None = None
        self.objects: list[object] | None = None

    def build(self, state: object) -> None:
        """Takes the state (version, shape, dtype, whether the order is Fortran's, data)."""
        if not isinstance(state, tuple) or len(state) < 4:
            raise TypeError("not the state of an array")
        shape, dtype, fortran, data = state[-4:]
        self.take(shape, dtype, bool(fortran), data)

    def take(self, shape: object, dtype: object, fortran: bool, data: object) -> None:
        """Takes what describes the array. Raises TypeError or ValueError if the description contradicts itself."""
        self.shape = extents(shape)
        if not isinstance(dtype, DtypePlan):
            raise TypeError("not a dtype")
        self.dtype, self.fortran = dtype, fortran
        if dtype.dtype is None:
            self.objects = data if isinstance(data, list) else None
            return
        data = data.encode() if isinstance(data, str) else data
        if not isinstance(data, bytes) or math.prod(self.shape) * dtype.dtype.itemsize != len(data):
            raise ValueError("an array has other data than its shape needs")
        self.data = data


def extents(value: object) -> tuple[int, ...]:
    """A shape or strides: at most MAX_DIMENSIONS integers of at least 0. Raises TypeError or ValueError for anything else."""
    if not isinstance(value, tuple | list) or len(value) > MAX_DIMENSIONS:
        raise TypeError("not a shape")
    numbers = tuple(integer(extent) for extent in value)
    if any(extent < 0 for extent in numbers):
        raise ValueError("a negative extent")
    return numbers


def integer(value: object) -> int:
    """An integer of at most 63 bits, or an int of numpy. Raises TypeError or ValueError for anything else."""
    if not isinstance(value, int):
        raise TypeError("not an integer")
    if abs(value) >= 2**63:
        raise ValueError("a number of more than 63 bits")
    return operator.index(value)


def tensor_of(plan: TensorPlan) -> Tensor:
    """The tensor of a plan. It shares the memory of the storage. Raises Refusal if the plan leaves its storage."""
    if math.prod(plan.size) >= 2**62 or len(plan.size) != len(plan.stride):
        raise _overrun()
    if plan.storage is None:
        return torch.empty(plan.size, dtype=plan.dtype, device="meta")
    memory = plan.storage.memory.data
    itemsize = plan.dtype.itemsize
    numel = plan.storage.numel * plan.storage.dtype.itemsize // itemsize
    if memory is None or plan.storage.start + numel * itemsize > len(memory):
        raise _overrun()
    last = plan.offset + sum((extent - 1) * stride for extent, stride in zip(plan.size, plan.stride, strict=True))
    if plan.offset < 0 or (0 not in plan.size and last >= numel):
        raise _overrun()
    if 0 in plan.size:
        return torch.empty(plan.size, dtype=plan.dtype)
    flat = memory[plan.storage.start : plan.storage.start + numel * itemsize].view(plan.dtype)
    tensor = flat.as_strided(plan.size, plan.stride, flat.storage_offset() + plan.offset)
    if plan.conjugated and tensor.is_complex():
        tensor = tensor.conj().resolve_conj()
    return -tensor if plan.negated else tensor


def dense_of(plan: SparsePlan, limit: int) -> Tensor | None:
    """The dense tensor of a sparse one, or None if it would have more than `limit` bytes. Raises Refusal for a bad plan."""
    indices, values = tensor_of(plan.indices), tensor_of(plan.values)
    dense_shape, hybrid = plan.size[: len(indices)], plan.size[len(indices) :]
    if math.prod(plan.size) * values.element_size() > limit or not values.dtype.is_floating_point:
        return None
    if (
        indices.dtype is not torch.int64
        or indices.ndim != 2
        or len(dense_shape) != len(indices)
        or tuple(values.shape) != (indices.shape[1], *hybrid)
        or any(bool(((row < 0) | (row >= extent)).any()) for row, extent in zip(indices, dense_shape, strict=True))
    ):
        raise Refusal("not-a-checkpoint", "the indices of a sparse tensor do not fit its shape; write the file again")
    if not len(indices):
        return None
    return torch.zeros(plan.size, dtype=values.dtype).index_put_(tuple(indices), values, accumulate=True)


def tensor_of_array(plan: ArrayPlan) -> Tensor | None:
    """The tensor of an array of numpy. It may share the memory of `plan`. None for an array of anything but numbers."""
    if plan.data is None or plan.dtype is None or (dtype := plan.dtype.dtype) is None:
        return None
    array = np.frombuffer(plan.data, dtype).reshape(plan.shape, order="F" if plan.fortran else "C")
    return tensor_from_numpy(np.asarray(array, dtype.newbyteorder("=")))


def tensor_from_numpy(array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> Tensor:
    """A tensor that shares the memory of an array, also of one that is read-only: nothing here writes to tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def scalar_of(dtype: DtypePlan, data: object) -> object:
    """The number, as one of Python, that numpy.core.multiarray.scalar makes; None if it is no number."""
    if dtype.dtype is None:
        return None
    data = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(data, bytes) or len(data) != dtype.dtype.itemsize:
        raise ValueError("a scalar has other data than its dtype needs")
    number: object = np.frombuffer(data, dtype.dtype)[0].item()
    return number


def _overrun() -> Refusal:
    return Refusal("not-a-checkpoint", "a tensor is larger than its storage in the file; write the file again")
