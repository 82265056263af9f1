"""From calls that change their arguments to calls that return results.

In the training IR of torch.export, `relu_(x)` changes `x` and everything that shares memory with `x`. A program has only
values, so that every change becomes a new value. Views are followed: after a change of a slice, the tensor that was sliced is
made anew, and so is every other view of it that is used later. A change is refused where it depends on the layout in memory
what shares memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from nern.errors import BadProgram
from nern.graph.operators import OPERATORS, aten
from nern.graph.program import Argument, Node, Ref

# These return their argument itself, or a copy if that is in another layout, of another dtype, or in training mode.
UNCERTAIN = {
    "aten.contiguous.default",
    "aten.reshape.default",
    "aten.flatten.using_ints",
    "aten.to.dtype",
    "aten.to.device",
    "aten.to.other",
    "aten.type_as.default",
    "aten.expand_as.default",
}
SAME = {
    "aten.alias.default",
    "aten.detach.default",
    "aten.lift_fresh.default",
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
}
RESHAPED = {
    "aten.view.default",
    "aten.unflatten.int",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
}


def functional_name(operator: str) -> str | None:
    """The operator that returns what this one changes its first argument to, or None if this one changes nothing."""
    packet = operator.split(".")[1] if operator.count(".") == 2 else ""
    if not operator.startswith("aten.") or not packet.endswith("_") or packet.endswith("__"):
        return None
    return operator.replace(f".{packet}.", f".{packet[:-1]}.")


def functional(nodes: Sequence[Node], outputs: Sequence[str]) -> tuple[list[Node], list[str]]:
    """The same computation without changes of arguments, and the names of the outputs in it. Raises BadProgram."""
    memory = _Memory(nodes)
    for node in nodes:
        memory.call(node)
    return memory.nodes, [memory.present(output) for output in outputs]


class _Memory:
    """The values so far, and which of them share memory."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes: list[Node] = []
        self._taken = {name for node in nodes for name in (*node.results, *node.references())}
        # The name under which a value of the file is known now.
        self._present: dict[str, str] = {}
        # For results of changes: the value of the file that was changed. It is the same tensor.
        self._same: dict[str, str] = {}
        # For views: the call that made it. Its first argument is the tensor that it shares memory with.
        self._views: dict[str, Node] = {}
        # How often a tensor, or a view of it, was changed; and at which of these a view was made.
        self._changes: dict[str, int] = {}
        self._made: dict[str, int] = {}
        # Tensors that a change may or may not have reached.
        self._unknown: dict[str, str] = {}

    def call(self, node: Node) -> None:
        changed = functional_name(node.operator)
        if changed is not None:
            self._change(node, changed)
            return
        self.nodes.append(self._current(node))
        if (base := _shared(node)) is not None:
            for name in node.results:
                if name is not None:
                    self._views[name] = replace(node, arguments=(Ref(self._same.get(base, base)), *node.arguments[1:]))
                    self._made[name] = self._changes.get(self._root(name), 0)

    def present(self, name: str) -> str:
        """The name of the value that a name of the file stands for now."""
        name = self._same.get(name, name)
        if name in self._unknown:
            raise BadProgram(self._unknown[name])
        root = self._root(name)
        if name in self._views and self._made[name] < self._changes.get(root, 0):
            view = self._views[name]
            if view.operator in UNCERTAIN or len(view.results) > 1:
                raise _refused(view)
            self._present[name] = self._emit(view, name)
            self._made[name] = self._changes[root]
        return self._present.get(name, name)

    def _change(self, node: Node, operator: str) -> None:
        target = node.arguments[0]
        result = node.results[0]
        if operator not in OPERATORS or not isinstance(target, Ref) or result is None:
            raise BadProgram(f"the operator {node.operator} at {node.place!r} is not supported")
        name = self._same.get(target.name, target.name)
        self.nodes.append(self._current(replace(node, operator=operator)))
        self._same[result] = name
        present = result
        # From the changed view to the tensor that owns the memory: each is made anew with the changed part in it.
        chain = [name]
        new = {name: present}
        while chain[-1] in self._views:
            view = self._views[chain[-1]]
            base = _first(view)
            if view.operator in UNCERTAIN or self._unknown.get(base):
                self._unknown.update(dict.fromkeys(self._family(base, chain), _refused(view).args[0]))
                break
            new[base] = present = self._scattered(view, chain[-1], base, present)
            chain.append(base)
        root = self._root(name)
        self._changes[root] = self._changes.get(root, 0) + 1
        for changed in chain:
            self._present[changed] = new[changed]
            self._made[changed] = self._changes[root]

    def _family(self, base: str, chain: Sequence[str]) -> Iterator[str]:
        """All values that may share memory with `base`, apart from those of `chain`."""
        root = self._root(base)
        names = {root, base, *(name for name in self._views if self._root(name) == root)}
        yield from names - set(chain)

    def _scattered(self, view: Node, name: str, base: str, present: str) -> str:
        """Adds the call that puts a changed view back into its tensor, and gives the name of the result."""
        packet = view.operator
        rest = list(view.arguments[1:])
        call: tuple[str, list[Argument], Mapping[str, Argument]]
        if packet in SAME:
            return present
        if packet in RESHAPED:
            call = ("aten.view_as.default", [Ref(present), Ref(self.present(base))], {})
        elif packet == "aten.slice.Tensor":
            call = ("aten.slice_scatter.default", [Ref(self.present(base)), Ref(present), *rest], dict(view.keywords))
        elif packet == "aten.select.int":
            call = ("aten.select_scatter.default", [Ref(self.present(base)), Ref(present), *rest], dict(view.keywords))
        elif packet == "aten.unbind.int":
            axis = rest[0] if rest else 0
            index = view.results.index(name)
            call = ("aten.select_scatter.default", [Ref(self.present(base)), Ref(present), axis, index], {})
        elif packet in ("aten.transpose.int", "aten.t.default"):
            call = (packet, [Ref(present), *rest], {})
        elif packet == "aten.permute.default" and isinstance(rest[0], list):
            axes = [axis % len(rest[0]) for axis in rest[0] if isinstance(axis, int)]
            call = (packet, [Ref(present), [axes.index(i) for i in range(len(axes))]], {})
        else:
            raise _refused(view)
        operator, arguments, keywords = call
        made = self._fresh(base)
        self.nodes.append(Node(operator, tuple(arguments), keywords, (made,), view.place))
        return made

    def _root(self, name: str) -> str:
        while name in self._views:
            name = _first(self._views[name])
        return name

    def _emit(self, view: Node, name: str) -> str:
        made = self._fresh(name)
        self.nodes.append(self._current(replace(view, results=(made,))))
        return made

    def _current(self, node: Node) -> Node:
        return replace(
            node,
            arguments=tuple(self._renamed(argument) for argument in node.arguments),
            keywords={name: self._renamed(argument) for name, argument in node.keywords.items()},
        )

    def _renamed(self, argument: Argument) -> Argument:
        if isinstance(argument, Ref):
            return Ref(self.present(argument.name))
        if isinstance(argument, Sequence) and not isinstance(argument, str):
            return [self._renamed(part) for part in argument]
        return argument

    def _fresh(self, name: str) -> str:
        number = 1
        while (made := f"{name}~{number}") in self._taken:
            number += 1
        self._taken.add(made)
        return made


def _shared(node: Node) -> str | None:
    """The value whose memory the results of a call share, or may share."""
    if not node.arguments or not isinstance(first := node.arguments[0], Ref):
        return None
    if node.operator in SAME or node.operator in UNCERTAIN:
        return first.name
    schema = aten.schema(node.operator)
    aliased = schema is not None and schema.arguments[0].alias_info is not None
    return first.name if aliased and not schema.is_mutable else None


def _first(view: Node) -> str:
    base = view.arguments[0]
    assert isinstance(base, Ref)
    return base.name


def _refused(view: Node) -> BadProgram:
    return BadProgram(
        f"a tensor is changed in place through {view.operator} at {view.place!r}, which is not supported; "
        "make the program functional before it is saved: program.run_decompositions({})"
    )


def without_dead(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """The nodes whose results are needed. Results that nothing uses are None."""
    needed = set(outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if any(name in needed for name in node.results):
            needed.update(node.references())
            kept.append(replace(node, results=tuple(name if name in needed else None for name in node.results)))
    return kept[::-1]


def unused(values: Mapping[str, object], nodes: Sequence[Node], outputs: Sequence[str]) -> set[str]:
    """The names among `values` that no node takes and that are no outputs."""
    return values.keys() - {name for node in nodes for name in node.references()} - set(outputs)
