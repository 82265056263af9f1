"""What the reader of pickles makes where a pickle calls a class or a function, by its qualified name.

This is the whole list. None of the functions that a pickle names is called: those that tensors, arrays and containers need are
written anew here, and make descriptions. Every other call becomes a stub.
"""

from collections.abc import Callable

import torch

from nern.stubs import QUANTISED, SPARSE, Stub
from service.inspection.budget import Budget
from service.inspection.plans import (
    TORCH_DTYPES,
    ArrayPlan,
    DtypePlan,
    SparsePlan,
    Storage,
    TensorPlan,
    extents,
    integer,
    scalar_of,
)
from service.inspection.refusal import Refusal
from service.inspection.unpickling import Name, key

# Modules and functions that a pickle calls only to do harm. This list protects those who would get the file from this service.
# The service itself needs no such list, because it calls nothing.
ATTACKS = {
    "os",
    "posix",
    "nt",
    "subprocess",
    "pty",
    "runpy",
    "importlib",
    "ctypes",
    "socket",
    "shutil",
    "webbrowser",
    "commands",
    "timeit",
    "pip",
    "builtins.eval",
    "builtins.exec",
    "builtins.execfile",
    "builtins.compile",
    "builtins.open",
    "builtins.__import__",
    "torch.load",
    "torch.hub.load",
}

# What a call costs beside its opcode.
CALL_OPERATIONS = 5

# Reads the bytes in which a tensor that was pickled without torch.save keeps its storage.
LoadStorage = Callable[[object], object]


class Constructors:
    """Makes the result of a call from its name and arguments: a value of the table below, or a Stub.

    An instance is the `construct` of an Unpickler. Raises TypeError or ValueError for arguments that do not fit the name.
    """

    def __init__(self, budget: Budget, load_storage: LoadStorage) -> None:
        self._budget = budget
        self._table: dict[str, Callable[..., object]] = {
            **_TABLE,
            "_codecs.encode": self._encode,
            "builtins.bytes": self._bytes,
            "builtins.bytearray": self._bytes,
            "builtins.dict": self._mapping,
            "builtins.list": self._elements,
            "builtins.set": self._elements,
            "builtins.frozenset": self._elements,
            "collections.deque": self._elements,
            "collections.OrderedDict": self._mapping,
            "collections.Counter": self._mapping,
            "collections.defaultdict": self._defaultdict,
            "torch.storage._load_from_bytes": load_storage,
        }

    def __call__(self, name: str, arguments: tuple[object, ...]) -> object:
        self._budget.spend(CALL_OPERATIONS)
        make = self._table.get(name)
        if make is None:
            _refuse_attack(name)
            return Stub(name, arguments)
        return make(*arguments)

    def _encode(self, text: object, encoding: object = "latin1") -> object:
        """Bytes, as protocols below 3 write them."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise TypeError("not text of latin1")
        self._budget.reserve(len(text))
        return text.encode("latin1")

    def _bytes(self, data: object = b"", encoding: object = "latin1", *_: object) -> object:
        """Bytes or a bytearray."""
        return data if isinstance(data, bytes) else self._encode(data, encoding)

    def _mapping(self, content: object = (), *_: object) -> object:
        """A dict of another dict, which is not copied, or of pairs."""
        if isinstance(content, dict):
            return content
        pairs = self._elements(content)
        self._budget.spend(2 * len(pairs))
        made: dict[object, object] = {}
        for pair in pairs:
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise TypeError("not a pair")
            made[key(pair[0])] = pair[1]
        return made

    def _elements(self, elements: object = (), *_: object) -> list[object]:
        """A list, a set or a deque. A list is not copied: copies of copies could fill the memory."""
        if isinstance(elements, list):
            return elements
        if not isinstance(elements, tuple):
            raise TypeError("not a list")
        self._budget.spend(len(elements))
        return list(elements)

    def _defaultdict(self, _factory: object = None, content: object = ()) -> object:
        return self._mapping(content)


def _refuse_attack(name: str) -> None:
    if name in ATTACKS or name.partition(".")[0] in ATTACKS:
        raise Refusal(
            "forbidden-pickle",
            f"the pickle in the file calls {name[:100]}, which is code and not data: it runs where somebody loads the file. "
            "Nothing was run here. Do not load the file with torch.load",
        )


def _tuple(elements: object = ()) -> object:
    """A tuple, and torch.Size."""
    if isinstance(elements, tuple):
        return elements
    raise TypeError("not a tuple")


def _tensor(storage: object, offset: object, size: object, stride: object, *rest: object) -> object:
    """torch._utils._rebuild_tensor and _v2 (requires_grad, hooks, metadata)."""
    if not isinstance(storage, Storage):
        raise TypeError("not a storage")
    metadata = rest[2] if len(rest) > 2 and isinstance(rest[2], dict) else {}
    return TensorPlan(
        storage, storage.dtype, integer(offset), extents(size), extents(stride),
        conjugated=bool(metadata.get("conj")), negated=bool(metadata.get("neg")),
    )  # fmt: skip


def _tensor_v3(
    storage: object, offset: object, size: object, stride: object, _grad: object, _hooks: object, dtype: object, *_: object
) -> object:
    """torch._utils._rebuild_tensor_v3, whose dtype is not that of the storage."""
    if not isinstance(storage, Storage):
        raise TypeError("not a storage")
    return TensorPlan(storage, _dtype(dtype), integer(offset), extents(size), extents(stride))


def _meta_tensor(dtype: object, size: object, stride: object, *_: object) -> object:
    return TensorPlan(None, _dtype(dtype), 0, extents(size), extents(stride))


def _sparse_tensor(layout: object, data: object, *_: object) -> object:
    """torch._utils._rebuild_sparse_tensor, in COO layout (indices, values, size, …); another layout becomes a stub."""
    if layout != Name("torch.sparse_coo") or not isinstance(data, tuple):
        return Stub(SPARSE, (layout, data))
    indices, values, size = data[:3]
    if not isinstance(indices, TensorPlan) or not isinstance(values, TensorPlan):
        raise TypeError("not a sparse tensor")
    return SparsePlan(indices, values, extents(size))


def _quantised_tensor(*arguments: object) -> object:
    return Stub(QUANTISED, arguments)


def _first(value: object = None, *_: object) -> object:
    """A wrapper around a tensor that does not change its values: a parameter, a tensor of a device or of a subclass."""
    return value


def _from_type(function: object, _type: object, arguments: object, *_: object) -> object:
    """torch._tensor._rebuild_from_type: a tensor of a subclass, or with attributes."""
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise TypeError("not a tensor")
    make = _REBUILDERS.get(function.text)
    return Stub(function.text, arguments) if make is None else make(*arguments)


def _layout(name: object) -> object:
    return Name(str(name) if isinstance(name, str) else "torch.strided")


def _dtype(name: object) -> torch.dtype:
    if not isinstance(name, Name) or name.text not in TORCH_DTYPES:
        raise TypeError("not a dtype")
    return TORCH_DTYPES[name.text]


def _array(*_: object) -> object:
    """numpy.core.multiarray._reconstruct: an array whose state follows."""
    return ArrayPlan()


def _array_of_buffer(data: object, dtype: object, shape: object, order: object = "C", *_: object) -> object:
    """numpy.core.numeric._frombuffer: an array in protocol 5."""
    plan = ArrayPlan()
    plan.take(shape, dtype, order == "F", data)
    return plan


def _numpy_dtype(code: object, *_: object) -> object:
    return DtypePlan(code if isinstance(code, str) else "")


def _scalar(dtype: object, data: object = None, *_: object) -> object:
    if not isinstance(dtype, DtypePlan):
        raise TypeError("not a dtype")
    number = scalar_of(dtype, data)
    return Stub("numpy.generic", (data,)) if number is None else number


def _reconstructed(cls: object, _base: object = None, state: object = None, *_: object) -> object:
    """copyreg._reconstructor: an object in protocols below 2."""
    if not isinstance(cls, Name):
        raise TypeError("not a class")
    made = Stub(cls.text)
    if isinstance(state, dict):
        made.items = state
    elif isinstance(state, list):
        made.elements = state
    elif state is not None:
        made.arguments = (state,)
    return made


# Functions that make tensors, which a tensor of a subclass may name.
_REBUILDERS: dict[str, Callable[..., object]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_sparse_tensor": _sparse_tensor,
    "torch._utils._rebuild_qtensor": _quantised_tensor,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta_tensor,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _first,
    "torch._utils._rebuild_xla_tensor": _first,
}

_TABLE: dict[str, Callable[..., object]] = {
    **_REBUILDERS,
    "torch._tensor._rebuild_from_type": _from_type,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.tensor._rebuild_from_type": _from_type,
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "torch.Size": _tuple,
    "torch.serialization._get_layout": _layout,
    # Attributes of TorchScript modules.
    "torch.jit._pickle.build_intlist": _first,
    "torch.jit._pickle.build_doublelist": _first,
    "torch.jit._pickle.build_boollist": _first,
    "torch.jit._pickle.build_tensorlist": _first,
    "torch.jit._pickle.restore_type_tag": _first,
    "builtins.tuple": _tuple,
    "copyreg._reconstructor": _reconstructed,
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _array_of_buffer,
    "numpy._core.numeric._frombuffer": _array_of_buffer,
}
