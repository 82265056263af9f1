"""From what the reader of pickles made to plain data: dicts, lists, tuples, tensors, scalars and stubs.

The result contains neither itself nor the same part so often that walking through it would take long. So whoever looks for
tensors in it needs no limits.
"""

from dataclasses import dataclass, field

from torch import Tensor

from nern.graph.program import Program
from nern.stubs import SPARSE, Stub
from service.inspection.budget import ADVICE, Budget
from service.inspection.modules import is_module, is_scripted_module, state_dict_of
from service.inspection.plans import (
    ArrayPlan,
    DtypePlan,
    SparsePlan,
    Storage,
    TensorPlan,
    dense_of,
    tensor_of,
    tensor_of_array,
)
from service.inspection.refusal import Refusal
from service.inspection.unpickling import Name

MAX_DEPTH = 64

# What a container or a tensor costs. Everything on every path is counted, also what several paths share.
VALUE_OPERATIONS = 8

# The characters of a path in a note.
MAX_PATH_CHARACTERS = 100

SCALARS = (str, bytes, int, float, complex, type(None))


@dataclass(frozen=True)
class Content:
    """What a file holds.

    tree: plain data. If the file holds a graph, its tensors by name.
    notes: sentences about what was made of the file on the way.
    program: the graph, or None.
    skeleton: an ONNX file without its tensors (see `nern.graph.onnx_writer`), or None for other files.
    """

    tree: object
    notes: list[str] = field(default_factory=list)
    program: Program | None = None
    skeleton: bytes | None = None


def plant(value: object, budget: Budget) -> Content:
    """The content of a file, from a value of an Unpickler.

    A module becomes its state_dict, an array a tensor, a sparse tensor a dense one if the budget allows. Where a value contains
    itself, a stub takes its place. An object that stands alone becomes the dict of its attributes. Raises Refusal.
    """
    conversion = _Conversion(budget)
    tree = conversion.convert(value)
    if isinstance(tree, Stub) and (tree.items or isinstance(tree.state, dict)):
        name = tree.name[:MAX_PATH_CHARACTERS]
        conversion.notes.append(
            f"the file holds an object of the class {name}; its attributes were taken, its code was not run"
        )
        tree = {**(tree.state if isinstance(tree.state, dict) else {}), **tree.items}
    return Content(tree, conversion.notes)


class _Conversion:
    def __init__(self, budget: Budget) -> None:
        self.notes: list[str] = []
        self._budget = budget
        self._tensors: dict[int, Tensor | Stub] = {}
        # Stubs that have been converted, and the containers around the value that is being converted, by id.
        self._known: set[int] = set()
        self._open: set[int] = set()
        self._path: list[object] = []
        self._stubs = 0

    def convert(self, value: object) -> object:
        if isinstance(value, SCALARS):
            self._budget.spend(1)
            return value
        self._budget.spend(VALUE_OPERATIONS)
        if isinstance(value, Tensor):
            return value
        if isinstance(value, ArrayPlan) and value.objects is not None:
            values = self._container(value.objects)
            return values[0] if not value.shape and isinstance(values, list) and values else values
        if isinstance(value, TensorPlan | SparsePlan | ArrayPlan):
            if id(value) not in self._tensors:
                self._tensors[id(value)] = self._tensor(value)
            return self._tensors[id(value)]
        if isinstance(value, dict | list | tuple | Stub):
            return self._container(value)
        return Stub(_name(value))

    def _tensor(self, plan: TensorPlan | SparsePlan | ArrayPlan) -> Tensor | Stub:
        if isinstance(plan, TensorPlan):
            return tensor_of(plan)
        if isinstance(plan, ArrayPlan):
            made = tensor_of_array(plan)
            return Stub("numpy.ndarray") if made is None else made
        dense = dense_of(plan, self._budget.nbytes)
        if dense is None:
            return Stub(SPARSE)
        self._budget.reserve(dense.nbytes)
        self.notes.append(f"the sparse tensor {self._where()} is kept as a dense one")
        return dense

    def _container(self, value: "dict[object, object] | list[object] | tuple[object, ...] | Stub") -> object:
        if id(value) in self._open:
            return Stub("cycle")
        if len(self._open) >= MAX_DEPTH:
            if self._stubs:
                return Stub("too deep")
            raise Refusal("too-demanding", f"the values in the file are nested more than {MAX_DEPTH} levels deep; {ADVICE}")
        self._open.add(id(value))
        try:
            if isinstance(value, dict):
                return self._dict(value)
            if isinstance(value, Stub):
                return self._stub(value)
            converted = [self._at(index, part) for index, part in enumerate(value)]
            return tuple(converted) if isinstance(value, tuple) else converted
        finally:
            self._open.discard(id(value))

    def _dict(self, value: dict[object, object]) -> dict[object, object]:
        return {self.convert(name) if isinstance(name, Stub) else name: self._at(name, part) for name, part in value.items()}

    def _at(self, name: object, value: object) -> object:
        self._path.append(name)
        try:
            return self.convert(value)
        finally:
            self._path.pop()

    def _stub(self, stub: Stub) -> object:
        if is_module(stub) or is_scripted_module(stub):
            return self._module(stub)
        if id(stub) in self._known:
            return Stub(stub.name)
        self._known.add(id(stub))
        self._stubs += 1
        try:
            made = Stub(
                stub.name,
                tuple(self._at(index, part) for index, part in enumerate(stub.arguments)),
                self.convert(stub.state),
                self._dict(stub.items),
                [self._at(index, part) for index, part in enumerate(stub.elements)],
            )
        finally:
            self._stubs -= 1
        # A dict of a class of its own that holds tensors is taken for a dict.
        return made.items if any(isinstance(part, Tensor) for part in made.items.values()) else made

    def _module(self, stub: Stub) -> dict[object, object]:
        found = self._dict(state_dict_of(stub, self._budget))
        if not self._stubs:
            kind = "a module of TorchScript" if is_scripted_module(stub) else "a whole pickled module"
            name = stub.name[:MAX_PATH_CHARACTERS]
            self.notes.append(f"{self._where()} is {kind} of the class {name}; its tensors were taken, its code was not run")
        return found

    def _where(self) -> str:
        path = ".".join(str(name)[:MAX_PATH_CHARACTERS] for name in self._path if not isinstance(name, Stub))
        return repr(path[-MAX_PATH_CHARACTERS:]) if path else "the content of the file"


def _name(value: object) -> str:
    if isinstance(value, Name):
        return value.text
    return {DtypePlan: "numpy.dtype", Storage: "torch.storage"}.get(type(value), "unknown")
