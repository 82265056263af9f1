"""The state_dict of a whole pickled module, from the stubs of its modules, without the code of any."""

from collections.abc import Iterator

from nern.stubs import Stub
from service.inspection.budget import ADVICE, Budget
from service.inspection.refusal import Refusal

# No network has modules in modules so deep.
MAX_DEPTH = 64

# What a module costs, each time it is reached.
MODULE_OPERATIONS = 10

# The attributes in which a module keeps what it consists of.
MEMBERS = ("_parameters", "_buffers", "_modules")

# Classes in TorchScript archives.
SCRIPTED = "__torch__."


def is_module(value: object) -> bool:
    """Whether a value is the stub of a torch.nn.Module."""
    state = value.state if isinstance(value, Stub) else None
    return isinstance(state, dict) and all(isinstance(state.get(name), dict) for name in MEMBERS)


def is_scripted_module(value: object) -> bool:
    """Whether a value is the stub of a module in a TorchScript archive."""
    return isinstance(value, Stub) and value.name.startswith(SCRIPTED) and isinstance(value.state, dict)


def state_dict_of(module: Stub, budget: Budget) -> dict[object, object]:
    """The parameters and persistent buffers of a module by name, in the order of `module.state_dict()`.

    A parameter or buffer that is None is left out. Modules and tensors that have several names stand under each of them. Raises
    Refusal for modules in modules without end.
    """
    found: dict[object, object] = {}
    for prefix, part in _walk(module):
        assert isinstance(part.state, dict)
        # A module may be reached in so many ways that its attributes can't be looked at each time.
        budget.spend(
            MODULE_OPERATIONS + sum(len(value) if isinstance(value, dict | list) else 1 for value in part.state.values())
        )
        budget.reserve(len(prefix))
        entries = _scripted_entries(part) if is_scripted_module(part) else _entries(part)
        for name, value in entries:
            budget.reserve(len(prefix) + len(name))
            found[prefix + name] = value
    return found


def _walk(module: Stub, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Stub]]:
    """A module and all modules inside it, with their prefixes, parents first."""
    if depth > MAX_DEPTH:
        raise Refusal("too-demanding", f"the pickled module has modules more than {MAX_DEPTH} levels deep; {ADVICE}")
    yield prefix, module
    for name, child in _children(module):
        yield from _walk(child, f"{prefix}{name}.", depth + 1)


def _children(module: Stub) -> Iterator[tuple[str, Stub]]:
    assert isinstance(module.state, dict)
    if is_scripted_module(module):
        children, belongs = module.state, is_scripted_module
    else:
        children, belongs = module.state["_modules"], is_module
    return ((name, child) for name, child in children.items() if isinstance(name, str) and belongs(child))


def _entries(module: Stub) -> Iterator[tuple[str, object]]:
    """The parameters and the persistent buffers of one module, by their names in this module."""
    assert isinstance(module.state, dict)
    passing = module.state.get("_non_persistent_buffers_set")
    passing = passing if isinstance(passing, list | tuple) else []
    left_out = {name for name in passing if isinstance(name, str)}
    for kind in ("_parameters", "_buffers"):
        for name, value in module.state[kind].items():
            if isinstance(name, str) and value is not None and not (kind == "_buffers" and name in left_out):
                yield name, value


def _scripted_entries(module: Stub) -> Iterator[tuple[str, object]]:
    """The tensors among the attributes of one module of TorchScript. Parameters, buffers and others can't be told apart."""
    assert isinstance(module.state, dict)
    for name, value in module.state.items():
        if isinstance(name, str) and not isinstance(value, Stub | str | int | float | bytes | dict | list | tuple | None):
            yield name, value
