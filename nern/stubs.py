"""Inert stand-ins for objects in an uploaded file that are neither tensors nor plain values. This module imports no torch.

The reader of pickles makes a stub wherever a pickle names a class or a function that it does not know. No code of the class
runs. A stub keeps what the file says of the object, so that tensors inside it can be found, and so that messages can name it.
"""

from dataclasses import dataclass, field

# The names of stubs for tensors that can't be dense tensors: quantised ones, and sparse ones of other layouts than COO.
QUANTISED = "torch._utils._rebuild_qtensor"
SPARSE = "torch._utils._rebuild_sparse_tensor"


@dataclass(eq=False, slots=True)
class Stub:
    """An object of the class `name`, or the result of the function `name`, or the class or function itself.

    `name` is the qualified name, for example `argparse.Namespace`. `arguments` are those of the constructor or function.
    `state` is what the object's attributes were, usually a dict by name; None if the file gives none. `items` has the entries
    of an object that is a kind of dict, `elements` those of a kind of list or set.
    """

    name: str
    arguments: tuple[object, ...] = ()
    state: object = None
    items: dict[object, object] = field(default_factory=dict)
    elements: list[object] = field(default_factory=list)
