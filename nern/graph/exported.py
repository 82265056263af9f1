"""Reading programs of torch.export (`.pt2` files) as data.

A file of torch.export.save is a zip archive. It holds the graph as JSON, the weights as bytes, and, in files of older releases
of torch, the weights as a pickle. The graph becomes a Program. Nothing of the file is executed, and torch.export.load is not
used: it unpickles. The layouts of torch 2.6 to 2.14 are read.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from torch import Tensor

from nern import tensorfile
from nern.errors import BadProgram
from nern.graph.archive import DTYPES, Archive, ReadPickled
from nern.graph.functional import functional, functional_name, unused, without_dead
from nern.graph.operators import OPERATORS, aten
from nern.graph.program import Argument, Constant, Node, Port, Program, Ref
from nern.layers import StateDict

MAX_NODES = 50_000
MAX_CONSTANT_BYTES = 32 * 2**20
# The depth of graphs inside graphs, such as those of torch.no_grad().
MAX_DEPTH = 8

SCHEMA = 8
ADVICE = "save it with torch.export.save of torch 2.6 or later"

# Calls that check something and give nothing.
CHECKS = (
    "aten._assert_",
    "aten.sym_constrain_range",
    "aten._functional_assert",
    "aten._functional_sym_constrain_range",
)
# The graph of these is a part of the graph around them.
INLINED = ("higher_order.wrap_with_set_grad_enabled", "higher_order.wrap_with_autocast")
# For operators that behave otherwise in training: the place of the argument that says so, in the schema.
TRAINING = {
    "aten.batch_norm.default": 5,
    "aten._native_batch_norm_legit.default": 5,
    "aten._native_batch_norm_legit_functional.default": 5,
    "aten.native_batch_norm.default": 5,
    "aten.cudnn_batch_norm.default": 5,
    "aten.dropout.default": 2,
    "aten.alpha_dropout.default": 2,
    "aten.feature_dropout.default": 2,
    "aten.feature_alpha_dropout.default": 2,
    "aten.native_dropout.default": 2,
    "aten.rrelu.default": 3,
    "aten.lstm.input": 6,
    "aten.gru.input": 6,
    "aten.rnn_tanh.input": 6,
    "aten.rnn_relu.input": 6,
}


@dataclass(frozen=True)
class Exported:
    """What a file holds: the program, its tensors by the names of the state_dict, and sentences about what was left out."""

    program: Program
    state_dict: StateDict
    notes: tuple[str, ...]


def read(file: BinaryIO, read_pickled: ReadPickled) -> Exported:
    """The program in a file of torch.export.save.

    `read_pickled` reads the state_dicts that older releases of torch pickled. Raises BadProgram for a file that is damaged, or
    has control flow, operators that are not in the allow-list, or objects that are no tensors.
    """
    archive = Archive(file, read_pickled)
    try:
        content, weights, constants, notes = _contents(archive)
        return _Reader(content, weights, constants, notes).read()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise BadProgram(f"the graph in the file is damaged, or of an unknown release of torch; {ADVICE}") from error


def _contents(archive: Archive) -> tuple[Mapping[str, Any], StateDict, StateDict, list[str]]:
    names = archive.names()
    if "serialized_exported_program.json" in names:
        content = archive.json("serialized_exported_program.json")
        return content, archive.pickled("serialized_state_dict.pt"), archive.pickled("serialized_constants.pt"), []
    models = [name.removeprefix("models/").removesuffix(".json") for name in names if name.startswith("models/")]
    if not models:
        if any(name.startswith("data/aotinductor/") for name in names):
            raise BadProgram(f"the archive holds compiled machine code and no graph; {ADVICE}")
        raise BadProgram(f"the archive holds no program of torch.export; {ADVICE}")
    model = "model" if "model" in models else models[0]
    notes = [f"The archive has the programs {', '.join(models)}. {model} was taken."] if len(models) > 1 else []
    content = archive.json(f"models/{model}.json")
    return content, archive.tensors("weights", model, "weights"), archive.tensors("constants", model, "constants"), notes


@dataclass
class _Reader:
    content: Mapping[str, Any]
    weights: StateDict
    lifted: StateDict
    notes: list[str]
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    inputs: list[Port] = field(default_factory=list)
    count: int = 0
    # How many nodes of each operator were in training mode.
    trained: dict[str, int] = field(default_factory=dict)

    def read(self) -> Exported:
        version = self.content["schema_version"]
        if version["major"] != SCHEMA:
            raise BadProgram(f"the file has version {version['major']} of the format of torch.export; {ADVICE}")
        module = self.content["graph_module"]
        graph, signature = module["graph"], module["signature"]
        for given, spec in zip(graph["inputs"], signature["input_specs"], strict=True):
            self._input(graph, given, spec)
        self._graph(graph, {}, 0)
        outputs = list(self._outputs(graph, signature["output_specs"]))
        nodes, present = functional(self.nodes, [port.name for port in outputs])
        nodes = without_dead(nodes, present)
        nodes, present = self._named(module, nodes, present)
        tensors = {value: name for value, name in self.tensors.items() if value not in unused(self.tensors, nodes, present)}
        for operator, count in self.trained.items():
            kind = "batch norms" if "batch_norm" in operator else "other layers" if "dropout" not in operator else "dropouts"
            self.notes.append(f"The program was exported in training mode. Its {count} {kind} were set to evaluation mode.")
        program = Program(
            inputs=tuple(self.inputs),
            outputs=tuple(replace(port, name=name) for port, name in zip(outputs, present, strict=True)),
            tensors=tensors,
            nodes=tuple(nodes),
            constants=self._constants(unused(self.constants, nodes, present)),
        )
        return Exported(program, self.weights, tuple(self.notes))

    def _input(self, graph: Mapping[str, Any], given: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
        kind, content = _only(spec)
        if kind == "user_input":
            if "as_tensor" in given:
                self.inputs.append(_port(graph, _name(given["as_tensor"])))
            elif "as_sym_int" in given or "as_custom_obj" in given:
                raise BadProgram("an input of the program is not a tensor; export it with that input fixed")
        elif kind == "parameter":
            self._weight(_name(content["arg"]), content["parameter_name"])
        elif kind == "buffer" and content["persistent"]:
            self._weight(_name(content["arg"]), content["buffer_name"])
        elif kind in ("buffer", "tensor_constant"):
            name = content["buffer_name"] if kind == "buffer" else content["tensor_constant_name"]
            if name not in self.lifted:
                raise BadProgram(f"the archive lacks the constant {name!r}; {ADVICE}")
            self.constants[_name(content["arg"])] = self.lifted[name]
        elif kind == "custom_obj":
            raise BadProgram(
                f"the program uses an object of Python or C++ ({content['custom_obj_name']}), which is not supported"
            )
        elif kind == "token":
            raise BadProgram("the program has operators with side effects, which are not supported")
        elif kind != "constant_input":
            raise BadProgram(f"the program has an input of the kind {kind}, which is not supported")

    def _weight(self, value: str, name: str) -> None:
        if name not in self.weights:
            raise BadProgram(f"the program uses the tensor {name!r}, which the archive does not have; {ADVICE}")
        self.tensors[value] = name

    def _constants(self, left_out: set[str]) -> dict[str, Constant]:
        kept = {name: tensor for name, tensor in self.constants.items() if name not in left_out}
        if sum(tensor.numel() * tensor.element_size() for tensor in kept.values()) > MAX_CONSTANT_BYTES:
            raise BadProgram(
                f"the buffers that are not in the state_dict are larger than {MAX_CONSTANT_BYTES >> 20} MiB together; "
                "register them with persistent=True, or make them parameters"
            )
        constants = {}
        for name, tensor in kept.items():
            if tensor.dtype not in tensorfile.NAMES:
                raise BadProgram(f"the constant {name!r} is of {tensor.dtype}, which is not supported")
            constants[name] = Constant(tensorfile.NAMES[tensor.dtype], tuple(tensor.shape), tensorfile.to_bytes(tensor))
        return constants

    def _graph(self, graph: Mapping[str, Any], scope: dict[str, str], depth: int) -> None:
        """Adds the nodes of a graph. `scope` has the names that values of an inner graph have in the program."""
        if depth > MAX_DEPTH:
            raise BadProgram("the program has graphs inside graphs, nested too deeply")
        for content in graph["nodes"]:
            self.count += 1
            if self.count > MAX_NODES:
                raise BadProgram(f"the program has more than {MAX_NODES} operators")
            self._node(content, scope, depth)

    def _node(self, content: Mapping[str, Any], scope: dict[str, str], depth: int) -> None:
        operator = str(content["target"]).removeprefix("torch.ops.")
        place = _place(content)
        if operator in INLINED:
            self._inline(content, scope, depth)
            return
        if operator.startswith("higher_order."):
            raise BadProgram(
                f"the program has control flow or a call of a graph ({operator}) at {place!r}, which is not supported"
            )
        if operator.startswith(CHECKS):
            return
        if (functional_name(operator) or operator) not in OPERATORS:
            kind = "operator" if operator.startswith(("aten.", "_operator.", "math.", "torch.")) else "custom operator"
            raise BadProgram(f"the {kind} {operator} at {place!r} is not supported")
        arguments, keywords = _arguments(operator, content["inputs"], scope, place)
        at = TRAINING.get(operator)
        without_statistics = "batch_norm" in operator and arguments[3] is None
        if at is not None and len(arguments) > at and arguments[at] is True and not without_statistics:
            arguments[at] = False
            self.trained[operator] = self.trained.get(operator, 0) + 1
        if operator == "aten.instance_norm.default" and arguments[3] is not None:
            arguments[5] = False
        results = [name for output in content["outputs"] for name in self._results(output, scope, depth)]
        if not results:
            return
        listed = any("as_tensors" in output for output in content["outputs"])
        if listed and len(results) == 1:
            # A list of one tensor. A node of one result gives the list, of which the tensor is taken.
            whole = self._fresh(f"{results[0]}~list")
            self.nodes.append(Node(operator, tuple(arguments), keywords, (whole,), place))
            self.nodes.append(Node("_operator.getitem", (Ref(whole), 0), {}, (results[0],), place))
        else:
            self.nodes.append(Node(operator, tuple(arguments), keywords, tuple(results), place))

    def _results(self, output: Mapping[str, Any], scope: dict[str, str], depth: int) -> Iterator[str | None]:
        kind, content = _only(output)
        if kind == "as_tensor":
            names: list[str | None] = [_name(content)]
        elif kind == "as_tensors":
            names = [_name(part) for part in content]
        elif kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            names = [str(content["as_name"])] if "as_name" in content else [None]
        elif kind in ("as_none", "as_int"):
            names = [None]
        elif kind == "as_optional_tensor":
            names = [_name(content["as_tensor"]) if "as_tensor" in content else None]
        else:
            raise BadProgram(f"an operator gives a value of the kind {kind}, which is not supported")
        for name in names:
            if name is not None and depth:
                scope[name] = self._fresh(name)
                yield scope[name]
            else:
                yield name

    def _inline(self, content: Mapping[str, Any], scope: dict[str, str], depth: int) -> None:
        graphs = [given["arg"]["as_graph"]["graph"] for given in content["inputs"] if "as_graph" in given["arg"]]
        start = next(number for number, given in enumerate(content["inputs"]) if "as_graph" in given["arg"]) + 1
        (graph,) = graphs
        inner: dict[str, str] = {}
        for port, given in zip(graph["inputs"], content["inputs"][start:], strict=True):
            inner[_any_name(port)] = _outer(_any_name(given["arg"]), scope)
        self._graph(graph, inner, depth + 1)
        results = [name for output in content["outputs"] for name in self._results(output, scope, depth)]
        for name, output in zip(results, graph["outputs"], strict=True):
            if name is not None:
                self.nodes.append(Node("aten.alias.default", (Ref(_outer(_any_name(output), inner)),), {}, (name,), ""))
        if "autocast" in content["target"]:
            sentence = "Parts of the program that ran with autocast are computed in float32."
            self.notes += [] if sentence in self.notes else [sentence]

    def _fresh(self, name: str) -> str:
        return f"{name}~{self.count}"

    def _named(self, module: Mapping[str, Any], nodes: list[Node], present: list[str]) -> tuple[list[Node], list[str]]:
        """Outputs that the network gives in a dict get the names of their keys."""
        taken = {name for node in nodes for name in (*node.results, *node.references())} | {port.name for port in self.inputs}
        keys = _keys(module)
        if len(keys) != len(present) or set(keys) & taken or len(set(keys)) < len(keys):
            return nodes, present
        named = [Node("aten.alias.default", (Ref(name),), {}, (key,), key) for name, key in zip(present, keys, strict=True)]
        return nodes + named, keys

    def _outputs(self, graph: Mapping[str, Any], specs: Sequence[Mapping[str, Any]]) -> Iterator[Port]:
        found = False
        for given, spec in zip(graph["outputs"], specs, strict=True):
            kind, _ = _only(spec)
            if kind in ("user_output", "loss_output"):
                if "as_tensor" in given:
                    found = True
                    yield _port(graph, _name(given["as_tensor"]))
                else:
                    self.notes.append("An output of the program that is not a tensor was left out.")
            elif kind == "token":
                raise BadProgram("the program has operators with side effects, which are not supported")
            elif kind.startswith("gradient"):
                raise BadProgram("the program computes gradients; export the network alone")
        if not found:
            raise BadProgram("the program has no tensor among its outputs")


def _arguments(
    operator: str, given: Sequence[Mapping[str, Any]], scope: Mapping[str, str], place: str
) -> tuple[list[Argument], dict[str, Argument]]:
    """The positional and the named arguments of a call, in the order of the operator's schema, with defaults where needed."""
    schema = aten.schema(operator)
    if schema is None:
        return [_argument(part["arg"], scope, place) for part in given], {}
    values = {part["name"]: part["arg"] for part in given}
    known = [argument.name for argument in schema.arguments]
    if len(values) < len(given) or not values.keys() <= set(known):
        raise BadProgram(f"the operator {operator} at {place!r} has arguments that this release does not know")
    positional = [argument for argument in schema.arguments if not argument.kwarg_only]
    needed = (
        number for number, argument in enumerate(positional) if argument.name in values or not argument.has_default_value()
    )
    last = max(needed, default=-1)
    arguments: list[Argument] = []
    for argument in positional[: last + 1]:
        if argument.name in values:
            arguments.append(_argument(values[argument.name], scope, place))
        elif argument.has_default_value():
            arguments.append(argument.default_value)
        else:
            raise BadProgram(f"the operator {operator} at {place!r} lacks the argument {argument.name}")
    keywords = {
        argument.name: _argument(values[argument.name], scope, place)
        for argument in schema.arguments
        if argument.kwarg_only and argument.name in values and argument.name not in aten.IGNORED
    }
    return arguments, keywords


def _argument(given: Mapping[str, Any], scope: Mapping[str, str], place: str) -> Argument:
    kind, content = _only(given)
    if kind in ("as_none", "as_memory_format", "as_layout", "as_device"):
        return None
    if kind in ("as_int", "as_bool", "as_string"):
        return _literal(content)
    if kind == "as_float":
        return _float(content)
    if kind in ("as_ints", "as_bools", "as_strings"):
        return [_literal(part) for part in content]
    if kind == "as_floats":
        return [_float(part) for part in content]
    if kind in ("as_int_lists", "as_float_lists"):
        return [[_literal(part) for part in row] for row in content]
    if kind == "as_scalar_type":
        return DTYPES[content][0]
    if kind == "as_tensor":
        return Ref(_outer(_name(content), scope))
    if kind == "as_tensors":
        return [Ref(_outer(_name(part), scope)) for part in content]
    if kind == "as_nested_tensors":
        return [[Ref(_outer(_name(part), scope)) for part in row] for row in content]
    if kind in ("as_optional_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
        return _either(content, scope)
    if kind in ("as_optional_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return [_either(part, scope) for part in content]
    raise BadProgram(
        f"the operator at {place!r} has an argument of the kind {kind.removeprefix('as_')}, which is not supported"
    )


def _either(content: Mapping[str, Any], scope: Mapping[str, str]) -> Argument:
    """A value or a literal: what the schema has for extents that may be symbolic, and for tensors that may be left out."""
    kind, value = _only(content)
    if kind == "as_name":
        return Ref(_outer(str(value), scope))
    if kind == "as_tensor":
        return Ref(_outer(_name(value), scope))
    return None if kind == "as_none" else _float(value) if kind == "as_float" else _literal(value)


def _literal(content: Any) -> bool | int | float | str:
    if not isinstance(content, bool | int | float | str) or (isinstance(content, int) and abs(content) >= 2**63):
        raise ValueError(content)
    return content


def _float(content: Any) -> float:
    # JSON has no infinity, so that torch writes it as text.
    if content in ("Infinity", "-Infinity", "NaN"):
        return float(content.lower().replace("infinity", "inf"))
    return float(_literal(content))


def _only(union: Mapping[str, Any]) -> tuple[str, Any]:
    """The one field of a union."""
    ((kind, content),) = union.items()
    return kind, content


def _name(content: Mapping[str, Any]) -> str:
    return str(content["name"])


def _any_name(argument: Mapping[str, Any]) -> str:
    _, content = _only(argument)
    return str(content["name"] if "name" in content else content["as_name"])


def _outer(name: str, scope: Mapping[str, str]) -> str:
    return scope.get(name, name)


def _port(graph: Mapping[str, Any], name: str) -> Port:
    meta = graph["tensor_values"][name]
    shape = tuple(size.get("as_int") for size in meta["sizes"])
    if (
        not all(extent is None or (type(extent) is int and extent >= 0) for extent in shape)
        or math.prod(extent or 1 for extent in shape) >= 2**40
    ):
        raise ValueError(shape)
    return Port(name, DTYPES[meta["dtype"]][0], shape)


def _keys(module: Mapping[str, Any]) -> list[str]:
    """The keys under which the network gives its outputs, if it gives them in a dict, in order."""
    try:
        _, spec = json.loads(module["module_call_graph"][0]["signature"]["out_spec"])
        keys = json.loads(spec["context"]) if spec["type"] in ("builtins.dict", "collections.OrderedDict") else []
        flat = all(child["type"] is None for child in spec["children_spec"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError):
        return []
    return keys if flat and isinstance(keys, list) and all(isinstance(key, str) and key for key in keys) else []


def _place(content: Mapping[str, Any]) -> str:
    """Where a node stands: its name, and the path of the module that it comes from."""
    name = content.get("name") or next((_any_name(output) for output in content["outputs"] if "as_tensor" in output), "")
    stack = content.get("metadata", {}).get("nn_module_stack") or ""
    parts = stack.split(";")[-1].split(",")
    path = parts[1] if len(parts) > 2 and not parts[1].startswith("_empty_nn_module_stack") else ""
    return f"{path} ({name})"[:200] if path else str(name)[:200]
